"""The Tencent Cloud SMS carrier: SendSms and its receipts (2021-01-11) behind real TC3-HMAC-SHA256, and its limits.

Default limits as Tencent's pages have them: one text to one number once in 30 seconds, one number ten messages in a day
of the calendar (cloud.tencent.com/developer/techpedia/1295/8938; an office with a certified company may raise both).
Its pages do not say how often a push is repeated (here as Aliyun's), nor whether what was pushed can be pulled as well
(here it can, the harder case), nor which moment `BeginTime` means (here that of sending).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.simulators.credentials import TencentWorld
from deploy.simulators.http import Reply, Request
from deploy.simulators.order_book import BEIJING
from deploy.simulators.sms_carrier import NUMBER, REFUSED_PREFIX, Message, Refusal, SmsCarrier, hashed

ALGORITHM = "TC3-HMAC-SHA256"
VERSION = "2021-01-11"
_SERVICE = "sms"
_FRESH = timedelta(minutes=5)
_SAME_TEXT = timedelta(seconds=30)
_PAGE = 100
_REMEMBERED = timedelta(days=7)
_TEMPLATE_ID = re.compile(r"[0-9]+")
_PLACEHOLDER = re.compile(r"\{([1-9][0-9]?)\}")
_LONGEST_CONTEXT = 512
_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 Credential=([^/,]+)/([0-9-]{10})/(\w+)/tc3_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)
_REPORT = {"delivered": "SUCCESS", "undelivered": "FAIL"}


class TencentCarrier(SmsCarrier):
    """Texts have {1}, {2}, …"""

    name = "tencent"
    dead_code = "MK:0001"  # 空号, in the words of the operator that says so
    delivered_code = "DELIVRD"

    def __init__(self, world: TencentWorld, *args: Any, **kwargs: Any) -> None:
        self._kept: deque[tuple[Message, str]] = deque()
        super().__init__(*args, **kwargs)
        self._world = world
        self.daily_limit = 10
        self.gives_context = True
        """Whether it has switched on for us that a receipt comes back with our reference."""

    def _unavailable(self, status: int) -> Reply:
        return _error(status, "InternalError", "An internal error has occurred.")

    def _answer(self, request: Request) -> Reply:
        try:
            answer = self._refusing(lambda: self._do(request))
        except Refusal as refusal:
            return _error(refusal.status, refusal.code, refusal.message)
        return Reply.of({"Response": {**answer, "RequestId": _request_id()}})

    def _do(self, request: Request) -> dict[str, Any]:
        self._verify(request)
        if self.throttled:
            raise Refusal(200, "RequestLimitExceeded", "请求的次数超过了频率限制。")
        actions = {
            "SendSms": self._send,
            "PullSmsSendStatus": self._pull,
            "PullSmsSendStatusByPhoneNumber": self._of_number,
        }
        action = actions.get(request.headers.get("x-tc-action", ""))
        if action is None:
            raise Refusal(200, "InvalidAction", "接口不存在。")
        if request.headers.get("x-tc-version") != VERSION:
            raise Refusal(200, "NoSuchVersion", "接口版本不存在。")
        try:
            parameters = json.loads(request.body)
        except ValueError:
            raise Refusal(200, "InvalidParameter", "参数错误。") from None
        if not isinstance(parameters, dict):
            raise Refusal(200, "InvalidParameter", "参数错误。")
        if parameters.get("SmsSdkAppId") != self._world.sdk_app_id:
            raise Refusal(200, "UnauthorizedOperation.SmsSdkAppIdVerifyFail", "SmsSdkAppId 校验失败")
        return action(parameters)

    def _send(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        numbers = parameters.get("PhoneNumberSet")
        if not isinstance(numbers, list) or not numbers:
            raise Refusal(200, "MissingParameter.EmptyPhoneNumberSet", "传入的号码列表为空")
        if len(numbers) > 200:
            raise Refusal(200, "LimitExceeded.PhoneNumberCountLimit", "号码个数超过200个")
        return {"SendStatusSet": [self._send_one(str(number), parameters) for number in numbers]}

    def _send_one(self, number: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Each number has a status of its own: a refusal here is no error of the call."""
        context = str(parameters.get("SessionContext") or "")
        status = {"PhoneNumber": number, "SessionContext": context, "IsoCode": "CN", "SerialNo": "", "Fee": 0}
        try:
            message = self._accept(number.removeprefix("+86"), parameters, context)
        except Refusal as refusal:
            self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
            return {**status, "Code": refusal.code, "Message": refusal.message}
        return {**status, "SerialNo": message.biz_id, "Fee": 1, "Code": "Ok", "Message": "send success"}

    def _accept(self, number: str, parameters: Mapping[str, Any], context: str) -> Message:
        template, values = str(parameters.get("TemplateId", "")), parameters.get("TemplateParamSet") or []
        if not NUMBER.fullmatch(number) or number.startswith(REFUSED_PREFIX):
            raise Refusal(200, "InvalidParameterValue.IncorrectPhoneNumber", "手机号格式错误。")
        if parameters.get("SignName") != self._world.sign_name:
            raise Refusal(200, "FailedOperation.SignatureIncorrectOrUnapproved", "签名未审批或格式错误。")
        if len(context.encode()) >= _LONGEST_CONTEXT:
            raise Refusal(200, "InvalidParameter.InvalidParameters", "SessionContext 过长")
        text = self._render(template, values)
        if any(word in text for word in self.forbidden):
            raise Refusal(200, "FailedOperation.ContainSensitiveWord", "短信内容中含有敏感词")
        to = hashed(number)
        same = (to, "text", hashed(text))
        day = (to, "day", f"{self._clock.now().astimezone(BEIJING):%Y%m%d}")
        if not self._within(same, _SAME_TEXT, 1):
            raise Refusal(200, "LimitExceeded.PhoneNumberThirtySecondLimit", "30秒内下发短信条数超过上限")
        if not self._within(day, timedelta(days=2), self.daily_limit):
            raise Refusal(200, "LimitExceeded.PhoneNumberDailyLimit", "单个手机号日下发短信条数超过上限")
        self._count(same, day)
        serial = f"2650:{len(self.messages):012d}{int(self._clock.now().timestamp())}"
        return self._take(number, template, text, context, serial)

    def _render(self, template: str, values: object) -> str:
        pattern = self._templates.get(template)
        if not self._templates and _TEMPLATE_ID.fullmatch(template):
            pattern = ""
        if pattern is None:
            raise Refusal(200, "FailedOperation.TemplateIncorrectOrUnapproved", "模板未审批或内容不匹配。")
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise Refusal(200, "InvalidParameter.InvalidParameters", "参数有误")
        if not pattern:
            return " ".join(values)
        if len({match[1] for match in _PLACEHOLDER.finditer(pattern)}) != len(values):
            raise Refusal(
                200,
                "FailedOperation.TemplateParamSetNotMatchApprovedTemplate",
                "请求内容与审核通过的模板内容不匹配。",
            )
        text = _PLACEHOLDER.sub(lambda match: values[int(match[1]) - 1], pattern)
        if len(text) > 500:
            raise Refusal(200, "InvalidParameterValue.ContentLengthLimit", "请求的短信内容太长")
        return text

    # Receipts

    def _settle(self, message: Message, number: str) -> None:
        super()._settle(message, number)
        self._kept.append((message, number))

    def _pull(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What was given once is gone."""
        limit = _limit(parameters)
        given = [self._kept.popleft() for _ in range(min(limit, len(self._kept)))]
        return {"PullSmsSendStatusSet": [self._status(message, number) for message, number in given]}

    def _of_number(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        self.asked += 1
        limit = _limit(parameters)
        number = str(parameters.get("PhoneNumber", "")).removeprefix("+86")
        begin, end = parameters.get("BeginTime"), parameters.get("EndTime")
        now = self._clock.now()
        if not isinstance(begin, int) or begin < int((now - _REMEMBERED).timestamp()):
            raise Refusal(200, "InvalidParameterValue.BeginTimeVerifyFail", "参数 BeginTime 校验失败。")
        if not isinstance(end, int) or end < begin:
            raise Refusal(200, "InvalidParameterValue.EndTimeVerifyFail", "参数 EndTime 校验失败。")
        if parameters.get("Offset") != 0:
            raise Refusal(200, "InvalidParameterValue.OffsetVerifyFail", "参数 Offset 校验失败。")
        found = [
            one
            for one in self._went_to(number)
            if one.state in _REPORT and begin <= one.at.timestamp() <= end
        ]
        return {"PullSmsSendStatusSet": [self._status(one, number) for one in found[:limit]]}

    def _status(self, message: Message, number: str) -> dict[str, Any]:
        assert message.done_at is not None
        return {
            "UserReceiveTime": int(message.done_at.timestamp()),
            "CountryCode": "86",
            "SubscriberNumber": number,
            "PhoneNumber": f"+86{number}",
            "SerialNo": message.biz_id,
            "ReportStatus": _REPORT[message.state],
            "Description": message.code,
            "SessionContext": message.out_id if self.gives_context else "",
        }

    def _receipt(self, message: Message, number: str, now: datetime) -> dict[str, Any]:
        return {
            "user_receive_time": f"{now.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}",
            "nationcode": "86",
            "mobile": number,
            "report_status": _REPORT[message.state],
            "errmsg": message.code,
            "description": "用户短信送达成功" if message.state == "delivered" else "空号",
            "sid": message.biz_id,
        }

    def _thanked(self, answer: Mapping[str, Any]) -> bool:
        return answer.get("result") == 0

    # Signatures

    def _verify(self, request: Request) -> None:
        """Raises Refusal unless key, moment and signature are right: over the request as it came."""
        headers = request.headers
        match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if match is None:
            raise Refusal(200, "AuthFailure.InvalidAuthorization", "请求头部的 Authorization 不符合标准。")
        secret_id, day, service, names, signature = match.groups()
        if secret_id != self._world.secret_id:
            raise Refusal(200, "AuthFailure.SecretIdNotFound", "密钥不存在。")
        signed = names.split(";")
        if sorted(signed) != signed or not {"content-type", "host"} <= set(signed) <= set(headers):
            raise Refusal(200, "AuthFailure.InvalidAuthorization", "签名未覆盖 content-type 与 host。")
        try:
            at = datetime.fromtimestamp(int(headers["x-tc-timestamp"]), UTC)
        except (KeyError, ValueError, OverflowError, OSError):
            raise Refusal(200, "MissingParameter", "缺少参数 Timestamp。") from None
        if abs(self._clock.now() - at) > _FRESH or day != f"{at:%Y-%m-%d}":
            raise Refusal(200, "AuthFailure.SignatureExpire", "签名过期。")
        # Of the action the value in lower case is signed, of the others the value as it is.
        lines = "".join(
            f"{name}:{headers[name].strip().lower() if name == 'x-tc-action' else headers[name].strip()}\n"
            for name in signed
        )
        content = hashlib.sha256(request.body).hexdigest()
        canonical = f"{request.method}\n/\n{request.query}\n{lines}\n{names}\n{content}"
        hashed_request = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"{ALGORITHM}\n{headers['x-tc-timestamp']}\n{day}/{service}/tc3_request\n{hashed_request}"
        key = b"TC3" + self._world.secret_key.encode()
        for part in (day, _SERVICE, "tc3_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        right = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        if service != _SERVICE or not hmac.compare_digest(right, signature):
            raise Refusal(200, "AuthFailure.SignatureFailure", "签名错误。")


def _limit(parameters: Mapping[str, Any]) -> int:
    limit = parameters.get("Limit")
    if not isinstance(limit, int) or not 1 <= limit <= _PAGE:
        raise Refusal(200, "InvalidParameterValue.LimitVerifyFail", "参数 Limit 校验失败。")
    return limit


def _error(status: int, code: str, message: str) -> Reply:
    return Reply.of(
        {"Response": {"Error": {"Code": code, "Message": message}, "RequestId": _request_id()}}, status
    )


def _request_id() -> str:
    return secrets.token_hex(16)
