"""The photo of a candidate: what is refused, and the bytes that are kept.

「照片大小为二寸，格式为jpg，文件大小必须在20-45kb之间。」 Format, bytes and dimensions refuse, each with its own reason;
background, face and pose are for the desk's eyes. The pixels are never re-coded: segments that carry no picture
(EXIF with the place it was taken, comments, thumbnails, profiles) and whatever follows the picture are cut away.
"""

import binascii
import re
import warnings
from base64 import b64decode
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image

from contracts.cycle import PhotoRules
from services.registration.domain.people import Wrong

# A JPEG of 45 KB can claim 65535 × 65535 pixels: no picture is unpacked beyond this.
PIXELS_MOST: Final = 4_000_000
# A progressive file may ask every viewer to go over the picture hundreds of times; honest encoders use about ten.
SCANS_MOST: Final = 32

_START: Final = b"\xff\xd8\xff"
_SOI, _EOI, _SOS, _APP0, _APP14, _TEM = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0x01
# Frames (baseline, extended, progressive), Huffman and quantisation tables, restart interval, scan.
_PICTURE: Final = frozenset((0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, _SOS))
_RESTARTS: Final = range(0xD0, 0xD8)
_LONE: Final = frozenset((_SOI, _TEM, *_RESTARTS))  # have no length, and no place between segments
_SCAN_END: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_NOT_JPEG: Final = "照片必须是 jpg（JPEG）格式的图片文件，改扩展名不算，请另存为 jpg 后重新上传。"
_BROKEN: Final = "照片文件已损坏或不完整，无法打开，请重新导出后上传。"


@dataclass(frozen=True, slots=True)
class Photo:
    jpeg: bytes
    width: int
    height: int
    grey: bool  # 「彩色证件照」 is judged by the desk

    def __repr__(self) -> str:
        return f"Photo({self.width}×{self.height}, {len(self.jpeg)} bytes)"


def photo(encoded: str, rules: PhotoRules) -> Photo:
    """The photo as it is kept. Raises Wrong, cheapest question first, so that a bad file costs little."""
    kept = rules.processed
    if not encoded:
        raise Wrong("请上传照片。")
    if len(encoded) > (kept.max_bytes + 2) // 3 * 4:
        raise Wrong(too_many_bytes(rules))
    try:
        data = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("照片未能完整上传（应为 Base64 编码的 jpg 文件），请重新上传。") from None
    if len(data) > kept.max_bytes:
        raise Wrong(too_many_bytes(rules))
    if not data.startswith(_START):
        raise Wrong(_NOT_JPEG)
    if len(data) < kept.min_bytes:
        raise Wrong(_too_few_bytes(rules, "照片文件"))
    image = _opened(data)
    width, height = image.size
    if image.mode not in ("RGB", "L"):
        raise Wrong("照片的颜色模式应为 RGB（印刷用的 CMYK 不能使用），请转换后重新上传。")
    if abs(width - kept.width) > kept.tolerance or abs(height - kept.height) > kept.tolerance:
        raise Wrong(
            f"照片尺寸应为二寸：{kept.width}×{kept.height} 像素（误差 {kept.tolerance} 像素以内），"
            f"现为 {width}×{height} 像素。"
        )
    stripped = without_metadata(data)
    if len(stripped) < kept.min_bytes:
        raise Wrong(_too_few_bytes(rules, "照片去除拍摄信息等附加数据后"))
    grey = image.mode == "L"
    _unpack(image)
    return Photo(stripped, width, height, grey)


def too_many_bytes(rules: PhotoRules) -> str:
    return f"照片文件不得大于 {_kb(rules.processed.max_bytes)} KB，请压缩后重新上传。"


def _too_few_bytes(rules: PhotoRules, what: str) -> str:
    return f"{what}不得小于 {_kb(rules.processed.min_bytes)} KB，请使用更清晰的照片。"


def _kb(size: int) -> str:
    return f"{size / 1024:g}"


def _opened(data: bytes) -> Image.Image:
    """Reads the header only; one decoder is allowed, the others of the library are not for strangers' bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is stricter than the library's warning
            image = Image.open(BytesIO(data), formats=["JPEG"])
    except Image.DecompressionBombError:
        raise Wrong(_too_many_pixels()) from None
    except Exception:  # whatever a decoder raises on a stranger's bytes, the answer is the same
        raise Wrong(_NOT_JPEG) from None
    if image.width * image.height > PIXELS_MOST:
        raise Wrong(_too_many_pixels())
    return image


def _too_many_pixels() -> str:
    return f"照片的像素过多（超过 {PIXELS_MOST // 10_000} 万），请缩小后重新上传。"


def _unpack(image: Image.Image) -> None:
    """Every coded block once, at an eighth of the size: a picture that no viewer can show is found here."""
    try:
        with image:
            image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
            image.load()
    except Exception:  # see _opened
        raise Wrong(_BROKEN) from None


def without_metadata(data: bytes) -> bytes:
    """The same picture, bit for bit, without segments that are not part of it and without what follows it.

    Kept of the application segments are JFIF (density) and Adobe's colour transform, each at its fixed length:
    a viewer would show other colours without the latter.
    """
    kept = bytearray(data[:2])
    at = 2
    scans = 0
    while True:
        at, marker = _marker(data, at)
        if marker == _EOI:
            kept += b"\xff\xd9"
            return bytes(kept)
        if marker in _LONE:
            raise Wrong(_BROKEN)
        length = int.from_bytes(data[at : at + 2], "big")
        end = at + length
        if length < 2 or end > len(data):
            raise Wrong(_BROKEN)
        if _is_picture(marker, data[at + 2 : end]):
            kept += bytes((0xFF, marker)) + data[at:end]
        at = end
        if marker == _SOS:
            scans += 1
            if scans > SCANS_MOST:
                raise Wrong("照片文件的编码过于复杂，请用普通（非渐进）方式另存为 jpg 后重新上传。")
            end = _end_of_scan(data, at)
            kept += data[at:end]
            at = end


def _marker(data: bytes, at: int) -> tuple[int, int]:
    """The marker at this place and the place after it; any number of fill bytes may stand before it."""
    if at >= len(data) or data[at] != 0xFF:
        raise Wrong(_BROKEN)
    while at < len(data) and data[at] == 0xFF:
        at += 1
    if at >= len(data) or data[at] == 0:
        raise Wrong(_BROKEN)
    return at + 1, data[at]


def _is_picture(marker: int, content: bytes) -> bool:
    if marker == _APP0:
        return content.startswith(b"JFIF\0") and len(content) == 14 and content[12:] == b"\0\0"
    if marker == _APP14:
        return content.startswith(b"Adobe") and len(content) == 12
    return marker in _PICTURE


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the coded blocks end: at the first marker that is neither a stuffed byte nor a restart."""
    found = _SCAN_END.search(data, at)
    if found is None:
        raise Wrong(_BROKEN)
    return found.end() - 2
