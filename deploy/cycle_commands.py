"""`kaowu cycle lint` and `kaowu cycle show`: what an office does with a cycle file before it opens anything."""

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from contracts.cycle import Cycle, CycleInvalid, Fee, Window
from contracts.cycle.lint import dead_ends, stages

app = typer.Typer(help="Look at a cycle file before it is used.", no_args_is_help=True)

CycleFile = Annotated[Path, typer.Argument(metavar="FILE", help="A cycle file (TOML).")]

_WEEKDAYS = "一二三四五六日"
# Tables of an office are wide; a pipe has no width of its own.
_PIPE_WIDTH = 132


@app.command()
def lint(file: CycleFile) -> None:
    """List every error with its line, and every warning. Exit 1 on an error."""
    console = _console()
    cycle = _read(console, file)
    found = cycle.lint()
    for finding in found:
        _line(console, ("warning ", "yellow"), (str(finding), ""))
    warnings = f"{len(found)} warning{'' if len(found) == 1 else 's'}"
    counts = f"{len(cycle.sites)} desks, {len(cycle.specialties)} specialties, {warnings}"
    _line(console, ("ok ", "green"), (f"{cycle.id}: {counts}, fingerprint {cycle.fingerprint[:12]}", ""))


@app.command()
def show(file: CycleFile) -> None:
    """The timetable as people read it."""
    console = _console()
    cycle = _read(console, file)
    console.print(Text(cycle.name, style="bold"))
    console.print(
        Text(f"依据：《{cycle.notice.title}》  网站：{cycle.notice.website}  考点电话：{cycle.contact_phone}")
    )
    for table in (
        _stages(cycle),
        _desks(cycle),
        _fees(cycle),
        _papers(cycle),
        _specialties(cycle),
        _documents(cycle),
        _photo(cycle),
        _rules(cycle),
    ):
        console.print()
        console.print(table)
    _dead_ends(console, cycle)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def _read(console: Console, file: Path) -> Cycle:
    try:
        return Cycle.read(file)
    except CycleInvalid as invalid:
        for problem in invalid.problems:
            _line(
                console,
                ("error ", "red"),
                (f"{file}:{problem.line}: {problem.key or 'file'}: {problem.reason}. {problem.remedy}.", ""),
            )
        count = len(invalid.problems)
        _line(console, (f"{count} error{'' if count == 1 else 's'}: this is no cycle", "red"))
        raise typer.Exit(1) from None


def _line(console: Console, *parts: tuple[str, str]) -> None:
    """One line however long: an error that a terminal folded cannot be searched for."""
    console.print(Text.assemble(*parts), soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table


def _opening(cycle: Cycle, moment: datetime) -> str:
    local = moment.astimezone(cycle.zone)
    return f"{local.year}年{local.month}月{local.day}日（星期{_WEEKDAYS[local.weekday()]}）{local:%H:%M}"


def _closing(cycle: Cycle, moment: datetime) -> str:
    """Midnight belongs to the day that ends with it: 24:00 is what people understand."""
    local = moment.astimezone(cycle.zone)
    if (local.hour, local.minute, local.second) != (0, 0, 0):
        return _opening(cycle, moment)
    day = local - timedelta(days=1)
    return f"{day.year}年{day.month}月{day.day}日（星期{_WEEKDAYS[day.weekday()]}）24:00"


def _short(text: str) -> str:
    """Without the year: a row of desks has no room for it."""
    return text.partition("年")[2].replace("星期", "")


def _stages(cycle: Cycle) -> Table:
    table = _table("时间安排（北京时间）", "阶段", "开始", "截止（对外公布）", "系统截止", "每日开放")
    for _, name, window in stages(cycle):
        enforced = "同左" if window.told_closes == window.closes else _closing(cycle, window.closes)
        table.add_row(
            name, _opening(cycle, window.opens), _closing(cycle, window.told_closes), enforced, _daily(window)
        )
    return table


def _daily(window: Window) -> str:
    return f"{window.daily.opens:%H:%M}-{window.daily.closes:%H:%M}" if window.daily else "全天"


def _desks(cycle: Cycle) -> Table:
    table = _table(
        f"报名点（{len(cycle.sites)}个）", "代码", "报名点", "现场确认地点", "咨询电话", "时间", "提醒"
    )
    table.columns[4].no_wrap = True
    dead = {site.id for site, _ in dead_ends(cycle)}
    for site in cycle.sites:
        if site.window is None:
            when, note = site.undated_note or "", Text("时间未定", style="yellow")
        else:
            when = "\n".join(
                f"{_short(_opening(cycle, each.opens))} 至 {_short(_closing(cycle, each.closes))}"
                for each in site.window.intervals
            )
            note = Text("死角" if site.id in dead else "", style="yellow")
        table.add_row(site.id, site.name, site.place or "未写", site.phone or "未写", when, note)
    return table


def _fees(cycle: Cycle) -> Table:
    table = _table("考试费", "项目", "标准", "适用级别", "适用方式")
    for fee in cycle.fees:
        table.add_row(
            fee.name, _price(fee), _named(fee.levels, cycle, "级别"), _named(fee.modes, cycle, "方式")
        )
    return table


def _price(fee: Fee) -> str:
    yuan, fen = divmod(fee.amount_fen, 100)
    amount = f"{yuan}元" if not fen else f"{yuan}.{fen:02d}元"
    return f"{amount}/科" if fee.per == "subject" else f"{amount}/人"


def _named(ids: tuple[str, ...] | None, cycle: Cycle, kind: str) -> str:
    if ids is None:
        return "全部"
    return "、".join((cycle.level(one) if kind == "级别" else cycle.mode(one)).name for one in ids)


def _papers(cycle: Cycle) -> Table:
    table = _table("考试科目和时间", "方式", "场次", *(subject.name for subject in cycle.subjects))
    sessions = {(paper.mode, paper.session): None for paper in cycle.papers}
    for mode, session in sessions:
        papers = {paper.subject: paper for paper in cycle.papers if paper.session == session}
        cells: list[str] = []
        for subject in cycle.subjects:
            paper = papers.get(subject.number)
            if paper is None:
                cells.append("")
                continue
            starts, ends = paper.starts.astimezone(cycle.zone), paper.ends.astimezone(cycle.zone)
            cells.append(f"{starts.month}月{starts.day}日 {starts:%H:%M}-{ends:%H:%M}")
        table.add_row(cycle.mode(mode).name, session, *cells)
    return table


def _specialties(cycle: Cycle) -> Table:
    table = _table("专业数", "级别", *(mode.name for mode in cycle.modes), "代码已核实")
    counts = Counter((specialty.level, specialty.mode) for specialty in cycle.specialties)
    verified = Counter(each.level for each in cycle.specialties if each.status == "verified")
    for level in cycle.levels:
        cells = [str(counts[level.id, mode.id]) for mode in cycle.modes]
        table.add_row(level.name, *cells, str(verified[level.id]))
    totals = [str(sum(1 for each in cycle.specialties if each.mode == mode.id)) for mode in cycle.modes]
    table.add_row("合计", *totals, str(verified.total()), style="bold")
    said = ["" if mode.specialties is None else str(mode.specialties) for mode in cycle.modes]
    table.add_row("公告所写", *said, "")
    return table


def _documents(cycle: Cycle) -> Table:
    table = _table("现场确认材料（原件及复印件）", "材料", "必交", "说明")
    for document in cycle.documents:
        table.add_row(document.name, "是" if document.needed else "视情况", document.note or "")
    return table


def _photo(cycle: Cycle) -> Table:
    photo = cycle.photo
    table = _table("照片", "项目", "要求")
    table.add_row("内容", f"{photo.pose}，{photo.background}")
    table.add_row("不接受", "、".join(photo.not_accepted))
    table.add_row("格式", "jpg")
    table.add_row(
        "上传后",
        f"{photo.processed.min_bytes // 1024}-{photo.processed.max_bytes // 1024}KB，"
        f"{photo.processed.width}×{photo.processed.height}像素（误差{photo.processed.tolerance}）",
    )
    table.add_row(
        "原始照片",
        f"不小于{photo.source.min_bytes}字节，不小于{photo.source.min_width}×{photo.source.min_height}像素",
    )
    return table


def _rules(cycle: Cycle) -> Table:
    table = _table("其他规则", "项目", "规定")
    table.add_row("资格审核", " → ".join(level.name for level in cycle.review_levels))
    table.add_row("自动确认", "实行" if cycle.switches.auto_confirm else "不实行")
    table.add_row("未在规定时间内现场确认", "报名失效")
    table.add_row("未在规定时间内缴费", "视为自动放弃考试")
    table.add_row("缴费提醒", "截止前 " + "、".join(_span(span) for span in cycle.windows.payment.reminders))
    table.add_row("停止生成新订单", f"截止前{_span(cycle.windows.payment.no_orders_before_close)}")
    table.add_row("不发短信", f"{cycle.quiet_hours.starts:%H:%M} 至 {cycle.quiet_hours.ends:%H:%M}")
    for rule in cycle.returning:
        table.add_row(
            f"成绩有效（{cycle.level(rule.level).name}）", f"连续{rule.consecutive_years}个考试年度"
        )
    return table


def _span(span: timedelta) -> str:
    hours, rest = divmod(int(span.total_seconds()), 3600)
    if hours and not rest:
        return f"{hours // 24}天" if hours % 24 == 0 else f"{hours}小时"
    return f"{int(span.total_seconds()) // 60}分钟"


def _dead_ends(console: Console, cycle: Cycle) -> None:
    console.print()
    dead = dead_ends(cycle)
    console.print(Text(f"死角（{len(dead)}处）", style="bold"))
    if not dead:
        console.print(Padding("没有：每个有时间的报名点都开放到网上预报名截止之后。", (0, 2)))
    for site, window in dead:
        text = Text.assemble(
            (site.name, "yellow"),
            f"：{_closing(cycle, window.closes)}停止确认，网上预报名到"
            f"{_closing(cycle, cycle.windows.pre_registration.closes)}；"
            "其间在该报名点预报名的考生将无法确认，系统不予受理并提示可选的报名点。",
        )
        console.print(Padding(text, (0, 2)))
