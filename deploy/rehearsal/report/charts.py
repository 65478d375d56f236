"""Charts as SVG text: bars and lines that print well and need nothing from outside the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from html import escape
from math import ceil
from zoneinfo import ZoneInfo

from deploy.rehearsal.report.figures import Desk, Minute, Stage

INK, FAINT, LINE = "#1d2a30", "#6b7a80", "#d9dfe1"
TEAL, SAND, RUST, SLATE = "#12616b", "#b98a2f", "#b1442b", "#5d7283"
WIDE = 960


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 13,
    fill: str = INK,
    anchor: str = "start",
    weight: int = 400,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(words)}</text>'
    )


def _rect(
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    *,
    round_: float = 0,
    title: str = "",
    opacity: float = 1,
) -> str:
    hint = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" fill="{fill}" '
        f'rx="{round_}" opacity="{opacity:g}">{hint}</rect>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, stroke: str = LINE, *, dash: str = "", width: float = 1
) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width}"{dashed}/>'


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDE} {height:.0f}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def funnel(stages: Sequence[Stage]) -> str:
    """One bar per stage, and under it what was lost on the way to the next.

    Every number stands at the beginning of its bar: a phone shows no more of a row without being pushed aside.
    """
    most = max((stage.count for stage in stages), default=1) or 1
    parts, row, left = [], 64, 118
    room = WIDE - left
    for number, stage in enumerate(stages):
        y = number * row
        width = room * stage.count / most
        inside = width > 70
        parts.append(_text(left - 14, y + 27, stage.name, anchor="end", size=15, weight=600))
        parts.append(_rect(left, y + 6, width, 32, TEAL, round_=3, title=f"{stage.name} {stage.count}"))
        x = left + (10 if inside else width + 8)
        fill = "#fff" if inside else INK
        parts.append(_text(x, y + 27, f"{stage.count:,}", fill=fill, size=16, weight=700))
        if lost := "　".join(f"− {why} {count:,}" for why, count in stage.lost if count):
            parts.append(_text(left + 10, y + 55, lost, size=13, fill=RUST))
    return _svg(len(stages) * row - 14, parts, "漏斗")


def days(
    series: Mapping[str, Mapping[date, int]], windows: Mapping[str, tuple[datetime, datetime]], zone: ZoneInfo
) -> str:
    """A row of bars per stage over the whole cycle; the stage's window is the shaded ground."""
    seen = [day for counts in series.values() for day in counts]
    edges = [moment.astimezone(zone).date() for pair in windows.values() for moment in pair]
    first, last = min(seen + edges), max(seen + edges)
    count = (last - first).days + 1
    left, right, row = 92, 12, 78
    step = (WIDE - left - right) / count
    parts = []
    for number, (name, counts) in enumerate(series.items()):
        top = number * row + 8
        if name in windows:
            opens, closes = (moment.astimezone(zone) for moment in windows[name])
            x = left + step * _days(first, opens)
            parts.append(
                _rect(x, top, step * (_days(first, closes) - _days(first, opens)), row - 20, "#eef3f3")
            )
        most = max(counts.values(), default=1)
        parts.append(_text(left - 12, top + 34, name, anchor="end", size=14, weight=600))
        parts.append(_text(left - 12, top + 52, f"最多 {most:,}/日", anchor="end", size=11, fill=FAINT))
        for day, value in sorted(counts.items()):
            height = (row - 28) * value / most
            x = left + step * (day - first).days
            hint = f"{day:%m-%d} {name} {value}"
            parts.append(_rect(x + 0.8, top + row - 20 - height, step - 1.6, height, TEAL, title=hint))
        parts.append(_line(left, top + row - 20, WIDE - right, top + row - 20))
    bottom = len(series) * row + 4
    for offset in range(count):
        day = first + timedelta(days=offset)
        if day.day in (1, 10, 20) or day == first:
            x = left + step * offset
            parts.append(_line(x, 8, x, bottom - 8, LINE, dash="1 3"))
            ends = x > WIDE - right - 44  # no room for it on the right of its line
            words = f"{day.month}月{day.day}日"
            parts.append(
                _text(
                    x - 2 if ends else x + 2,
                    bottom + 8,
                    words,
                    size=11,
                    fill=FAINT,
                    anchor="end" if ends else "start",
                )
            )
    return _svg(bottom + 16, parts, "每日办理量")


def _days(first: date, moment: datetime) -> float:
    begin = datetime.combine(first, datetime.min.time(), moment.tzinfo)
    return (moment - begin) / timedelta(days=1)


def close(minutes: Sequence[Minute], closes: datetime, last_order_at: datetime, zone: ZoneInfo) -> str:
    """Payments as bars, those who still owe as a line, and the close as the edge it is."""
    left, right, top, height = 58, 58, 34, 250
    step = (WIDE - left - right) / max(1, len(minutes))
    most = max((max(m.paid, m.refused) for m in minutes), default=1) or 1
    # Whole people at each of its four lines.
    owing = max(4, 4 * ceil(max((m.unpaid + m.expired for m in minutes), default=0) / 4))
    most = most if most < 4 else 4 * ceil(most / 4)
    base = top + height
    first = minutes[0].at
    parts = []

    def x_of(moment: datetime) -> float:
        return left + step * ((moment - first) / timedelta(minutes=1))

    edge, order_edge = x_of(closes), x_of(last_order_at)
    parts.append(_rect(edge, top, WIDE - right - edge, height, "#f6efe9"))
    parts.append(_rect(order_edge, top, edge - order_edge, height, "#efe3cf"))
    for part in range(5):
        y = base - height * part / 4
        parts.append(_line(left, y, WIDE - right, y, LINE, dash="" if part == 0 else "1 3"))
        parts.append(_text(WIDE - right + 8, y + 4, f"{owing * part / 4:,.0f}", size=11, fill=SLATE))
        if most >= 4 or part in (0, 4):
            parts.append(_text(left - 8, y + 4, f"{most * part / 4:,.0f}", size=11, fill=TEAL, anchor="end"))
    for number, minute in enumerate(minutes):
        x = left + step * number
        local = f"{minute.at.astimezone(zone):%H:%M}"
        if minute.paid:
            tall = height * minute.paid / most
            parts.append(
                _rect(x + 0.6, base - tall, step - 1.2, tall, TEAL, title=f"{local} 缴费 {minute.paid}")
            )
        if minute.refused:
            tall = height * minute.refused / most
            parts.append(
                _rect(
                    x + step * 0.25,
                    base - tall,
                    step * 0.5,
                    tall,
                    RUST,
                    title=f"{local} 被拒 {minute.refused}",
                )
            )
    points = []
    for number, minute in enumerate(minutes):
        y = base - height * minute.unpaid / owing
        if minute.expired:
            points.append(
                f"{left + step * number:.1f},{base - height * (minute.unpaid + minute.expired) / owing:.1f}"
            )
        points.append(f"{left + step * number:.1f},{y:.1f} {left + step * (number + 1):.1f},{y:.1f}")
    parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{SLATE}" stroke-width="2"/>')
    parts.append(_line(edge, top - 8, edge, base, RUST, width=1.6))
    expired = sum(minute.expired for minute in minutes)
    parts.append(
        _text(edge + 8, top - 12, f"{closes.astimezone(zone):%H:%M} 截止", size=14, fill=RUST, weight=700)
    )
    parts.append(_text(edge + 8, top + 16, f"{expired:,} 人视为自动放弃", size=13, fill=RUST))
    parts.append(
        _text(
            order_edge - 8,
            top - 12,
            f"{last_order_at.astimezone(zone):%H:%M} 起不再下单",
            size=12,
            fill=SAND,
            anchor="end",
        )
    )
    for minute in minutes:
        clock = minute.at.astimezone(zone)
        if clock.minute % 15 == 0:
            parts.append(
                _text(x_of(minute.at), base + 18, f"{clock:%H:%M}", size=11, fill=FAINT, anchor="middle")
            )
    parts.append(_text(left, 14, "■ 每分钟缴费（左）", size=12, fill=TEAL))
    parts.append(_text(left + 128, 14, "■ 来晚被拒（左）", size=12, fill=RUST))
    parts.append(_text(left + 244, 14, "— 尚未缴费人数（右）", size=12, fill=SLATE))
    return _svg(base + 26, parts, "缴费截止前后")


def tiles(desks: Sequence[Desk], places: Mapping[str, tuple[int, int]]) -> str:
    """A schematic map: a tile per desk where it lies; the fuller the colour, the more of its approved people have paid."""
    columns = 1 + max((places[desk.site.id][0] for desk in desks if desk.site.id in places), default=5)
    width, height, gap = 150.0, 92.0, 8.0
    left = (WIDE - columns * (width + gap)) / 2
    parts, spare = [], 0
    rows = 1 + max((place[1] for place in places.values()), default=-1)
    for desk in desks:
        place = places.get(desk.site.id)
        if place is None:
            place = (spare % columns, rows + spare // columns)
            spare += 1
        x, y = left + place[0] * (width + gap), place[1] * (height + gap)
        shade = 0.12 + 0.88 * max(0.0, (desk.share_paid - 0.8) / 0.2) if desk.approved else 0.04
        parts.append(_rect(x, y, width, height, TEAL, round_=6, opacity=shade, title=desk.site.name))
        parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="none" stroke="{TEAL}" stroke-opacity=".35"/>'
        )
        fill = "#fff" if shade > 0.58 else INK
        name = desk.site.name if len(desk.site.name) <= 9 else desk.site.name[:8] + "…"
        parts.append(_text(x + 12, y + 25, name, size=15, fill=fill, weight=700))
        parts.append(_text(x + 12, y + 50, f"报名 {desk.people:,}　缴费 {desk.paid:,}", size=12, fill=fill))
        parts.append(
            _text(
                x + 12,
                y + 74,
                f"{desk.share_paid:.1%}" if desk.approved else "—",
                size=17,
                fill=fill,
                weight=700,
            )
        )
        parts.append(_text(x + width - 10, y + 74, f"放弃 {desk.expired}", size=12, fill=fill, anchor="end"))
    total = rows + (spare + columns - 1) // columns
    return _svg(total * (height + gap), parts, "报名点示意图")
