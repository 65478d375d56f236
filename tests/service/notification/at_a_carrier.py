"""A client of one carrier of SMS before that carrier, simulated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from deploy.simulators.sms_carrier import SmsCarrier
from services.notification.adapters import aliyun, tencent
from tests.simulators.outside import Outside

PHONE = "13800001234"
VARIABLES = {"number": "5678", "deadline": "2024年2月8日（星期四）24时"}
TEXT = "考生5678：网上缴费截止2024年2月8日（星期四）24时，逾期视为自动放弃考试。"
NAMES = ("aliyun", "tencent")
CODES = {"aliyun": "SMS_474580001", "tencent": "2240001"}
APPROVED = {
    "aliyun": {CODES["aliyun"]: "考生${number}：网上缴费截止${deadline}，逾期视为自动放弃考试。"},
    "tencent": {CODES["tencent"]: "考生{1}：网上缴费截止{2}，逾期视为自动放弃考试。"},
}
TENCENT = tencent.TencentAccount("http://sms.test", "AKID", b"secret", "1400", "考点", "ap-guangzhou")


@dataclass
class Scene:
    name: str
    stage: Outside
    sms: aliyun.AliyunSms | tencent.TencentSms

    @property
    def carrier(self) -> SmsCarrier:
        return self.stage.world.sms if self.name == "aliyun" else self.stage.world.tencent

    @property
    def at(self) -> str:
        """Its part of the control port."""
        return "/sim/sms" if self.name == "aliyun" else "/sim/tencent"

    async def send(self, to: str = PHONE, reference: str = "message-1", **variables: str) -> str:
        given = VARIABLES | variables
        return (await self.sms.send(to, CODES[self.name], given, "", reference)).provider_ref

    def another(self, **change: Any) -> aliyun.AliyunSms | tencent.TencentSms:
        """A client with an account that differs in this."""
        return client(self.name, self.stage, **change)


def client(name: str, stage: Outside, **change: Any) -> aliyun.AliyunSms | tencent.TencentSms:
    file = stage.world.accounts[name]
    if name == "aliyun":
        return aliyun.AliyunSms(replace(aliyun.AliyunAccount.read(file), **change), clock=stage.clock)
    return tencent.TencentSms(replace(tencent.TencentAccount.read(file), **change), clock=stage.clock)
