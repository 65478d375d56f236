"""The words that people read in a report, for the ids of the system."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo
from typing import Final

STATES: Final = {
    "refused": "未能预报名",
    "pre-registered": "已预报名",
    "withdrawn": "已撤回",
    "lapsed": "逾期未确认",
    "confirmed": "已确认待审",
    "rejected": "审核不通过",
    "approved": "通过待缴费",
    "paid": "已缴费",
    "expired": "视为自动放弃",
    "held": "缴费待核实",
}
MONEY: Final = {"received": "实收", "refunded": "已退", "due": "待退", "held": "待核实"}
OCCASIONS: Final = {
    "pre-registered": "预报名成功",
    "amended": "信息已修改",
    "withdrawn": "已撤回",
    "returned": "退回补正",
    "confirmed": "现场确认",
    "lapsed": "逾期未确认",
    "approved": "审核通过",
    "rejected": "审核不通过",
    "due": "开始缴费",
    "closing-soon": "缴费将截止",
    "paid": "缴费成功",
    "expired": "视为自动放弃",
    "reinstated": "恢复资格",
    "refunded": "退费",
    "desk-window-moved": "确认时间变动",
    "payment-window-moved": "缴费时间变动",
}
CHANNELS: Final = {"sms": "短信", "email": "邮件"}
MESSAGE_STATES: Final = {
    "delivered": "送达",
    "undelivered": "未送达",
    "expired": "逾期无回执",
    "superseded": "不再需要",
    "accepted": "已交运营商",
    "sending": "发送中",
    "created": "待发",
}
PROVIDERS: Final = {"aliyun": "阿里云", "tencent": "腾讯云", "smtp": "邮件服务器", "": "未交出"}
MISSED: Final = {
    "number-not-in-use": "空号或停机",
    "bad-number": "手机号码有误",
    "number-blocked": "号码拒收",
    "no-address": "未留联系方式",
    "no-receipt": "七十二小时无回执",
    "too-late": "未能在截止前发出",
    "given-up": "多次发送失败",
    "template-refused": "内容被运营商拒绝",
    "domain-unknown": "邮箱域名不存在",
    "mailbox-unknown": "邮箱不存在",
    "mailbox-disabled": "邮箱已停用",
    "mailbox-full": "邮箱已满",
    "mail-too-big": "邮件过大",
    "not-reached": "对方邮件服务器连接不上",
    "unconfirmed": "短信无回执，邮件未送达",
    "refused": "对方拒收",
    "erased": "联系方式已删除",
}
CALLS: Final = {
    "reached": "已通知本人",
    "not-reached": "无人接听",
    "wrong-number": "号码错误",
    "told": "短信或邮件已送达",
    "settled": "无需再通知",
    "over": "已过截止时间",
    "erased": "联系方式已删除",
}
CODES: Final = {
    "window-not-open": "未到办理时间",
    "window-closed": "已过办理时间",
    "desk-closed": "报名点确认已结束",
    "desk-undated": "报名点时间未公布",
    "already-registered": "重复报名",
    "form-outdated": "申报表非最新",
    "documents-missing": "材料不全",
    "other-site": "非本报名点考生",
    "not-confirmed": "尚未现场确认",
    "not-approved": "尚未审核通过",
    "already-paid": "已经缴费",
    "too-late-to-order": "截止前两分钟不再下单",
    "invalid": "填写有误",
    "gateway-refused": "支付网关拒绝",
    "not-allowed": "当前状态不允许",
    "not-found": "没有找到",
}
VERBS: Final = {
    "pre-register": "网上预报名",
    "amend": "修改报名信息",
    "withdraw": "撤回报名",
    "confirm": "到报名点现场确认",
    "return": "退回补正",
    "approve": "审核通过",
    "reject": "审核不通过",
    "order": "提交缴费订单",
    "pay": "在支付网关付款",
}
FACTS: Final = {
    "registration.pre-registered": "预报名成立",
    "registration.amended": "信息修改，旧表作废",
    "registration.contact-changed": "联系方式已变更",
    "registration.erased": "个人信息已删除",
    "registration.withdrawn": "报名撤回",
    "confirmation.confirmed": "现场确认完成",
    "confirmation.returned": "退回补正",
    "confirmation.reviewed": "一级审核有结论",
    "confirmation.approved": "资格审核全部通过",
    "confirmation.rejected": "资格审核不通过",
    "confirmation.lapsed": "逾期未确认",
    "confirmation.window-moved": "报名点时间变动",
    "payment.due": "应缴费用确定",
    "payment.closing-soon": "缴费截止提醒",
    "payment.paid": "缴费确认",
    "payment.expired": "未缴费，视为自动放弃",
    "payment.reinstated": "恢复资格",
    "payment.refunded": "退费",
    "payment.window-moved": "缴费时间变动",
}
INVARIANTS: Final = {
    "I1": "资金：网关账与我方账逐单相符，分毫不差",
    "I2": "同一报名不会既缴费又放弃；截止前已付的必为已缴费",
    "I3": "只发生允许的状态变化",
    "I4": "每份报名的事件版本连续、有序",
    "I5": "一件不丢：每个事件都已发布、都已被各方接收",
    "I6": "重复投递只生效一次",
    "I7": "不早一刻、不漏一人：放弃均在截止之后且有凭据",
    "I8": "应告知的每件事，每个渠道恰有一条消息且有结果",
    "I9": "重复提交得到同一答复",
    "I10": "每次撤销决定都有事件、理由和通知",
    "I11": "静止时无积压",
    "I12": "暂存的事件完整可重放",
    "I13": "数据库状态等于事件重演的结果",
    "I14": "每次变化都有可核实的来源",
    "I16": "事件、日志、指标和本报告中没有任何个人信息",
}
# What was checked, as `kaowu check` says it, in the words of the page.
_CHECKED: Final = {
    "I1": (r"(\d+) payments, (\d+) fen, against .*", "缴费 {0} 笔，共 {1} 元"),
    "I2": (r"(\d+) obligations", "应缴 {0} 份"),
    "I3": (r"(\d+) facts", "事实 {0} 条"),
    "I4": (r"(\d+) records", "事件流记录 {0} 条"),
    "I5": (r"(\d+) events, (\d+) deliveries", "事件 {0} 个，各方应收 {1} 次"),
    "I6": (r"(\d+) effects of (\d+) events", "事件 {1} 个，产生结果 {0} 个"),
    "I7": (
        r"(\d+) forfeitures, (\d+) proofs, (\d+) closes, (\d+) roots",
        "放弃 {0} 人，凭据 {1} 份，截止 {2} 次，公布凭据根 {3} 个",
    ),
    "I8": (r"(\d+) facts, .*", "应告知的事 {0} 件"),
    "I9": (r"(\d+) keys", "提交编号 {0} 个"),
    "I10": (r"(\d+) reversals", "撤销 {0} 次"),
    "I11": (r"(\d+) outboxes, (\d+) groups", "发件箱 {0} 个，接收方 {1} 个"),
    "I12": (r"(\d+) parked, (\d+) ever", "现有暂存 {0} 个，累计 {1} 个"),
    "I13": (r"(\d+) rows", "数据 {0} 行"),
    "I14": (r"(\d+) decisions, (\d+) entries, (\d+) orders", "决定 {0} 个，账目 {1} 笔，订单 {2} 个"),
    "I16": (r"(\d+) secrets in ([\d.]+) MiB of .*", "个人信息 {0} 项，查找范围 {1} MiB"),
}


def checked(invariant: str, said: str) -> str:
    """In Chinese; as it was said where it says something else than usual."""
    pattern, words = _CHECKED.get(invariant, ("", ""))
    match = re.fullmatch(pattern, said) if words else None
    if match is None:
        return said
    found = list(match.groups())
    if invariant == "I1":
        found[1] = f"{int(found[1]) / 100:,.2f}"
    return words.format(*found)


def moment_of_close(at: datetime, zone: tzinfo) -> str:
    """A close as people read it: midnight is the end of the day before, `2024年2月8日 24:00`."""
    local = at.astimezone(zone)
    if local.hour == local.minute == local.second == 0:
        day = local - timedelta(days=1)
        return f"{day.year}年{day.month}月{day.day}日 24:00"
    return f"{local.year}年{local.month}月{local.day}日 {local:%H:%M}"


TOPICS: Final = {
    "exam.registration": "报名",
    "exam.confirmation": "确认与审核",
    "exam.payment": "缴费",
    "exam.notification": "通知",
}
REVIEW_LEVELS: Final = {"desk": "报名点", "site": "考点", "district": "考区"}
LEVELS: Final = {"junior-assistant": "初级士", "junior": "初级师", "intermediate": "中级"}
WORLD: Final = {
    "set-desk-window": "公布报名点时间",
    "extend": "延长时间",
    "revive": "恢复一人资格",
    "gateway-down": "支付网关中断",
    "carrier-down": "短信或邮件通道中断",
    "kill": "服务进程被终止",
    "freeze": "服务进程冻结",
    "broker-down": "消息系统中断",
    "database-restart": "数据库重启",
    "callback-replay": "支付回调重放",
    "two-person-move": "两人办理的时间变更",
    "two-person-revival": "两人办理的资格恢复",
}
_OUTSIDE_DOWN: Final = {
    "wechat-down": "微信支付网关不应答",
    "alipay-down": "支付宝网关不应答",
    "sms-down": "短信通道不应答",
    "mail-down": "邮件通道不应答",
    "bounce-report": "退信：邮箱不存在",
    "bounce-report-full": "退信：邮箱已满",
    "bounce-report-delayed": "延迟投递通知",
    "bounce-qq": "退信：邮箱不存在（QQ 格式）",
    "bounce-netease": "退信：邮箱已满（网易格式）",
}


def fault(name: str) -> str:
    """`kill payment` and `wechat-down`, in Chinese."""
    verb, _, part = name.partition(" ")
    said = WORLD.get(verb) or _OUTSIDE_DOWN.get(verb, verb)
    return f"{said}（{TOPICS.get(f'exam.{part}', part)}）" if part else said
