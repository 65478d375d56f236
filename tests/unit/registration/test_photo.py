"""Photos: 「格式为jpg，文件大小必须在20-45kb之间」, and nothing in the file but the picture."""

from __future__ import annotations

import io
import time
import zipfile
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.registration.domain import photo as photos
from services.registration.domain.people import Wrong
from tests.unit.registration.samples import cycle, encoded, jpeg

RULES = cycle().photo
LEAST, MOST = RULES.processed.min_bytes, RULES.processed.max_bytes


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + segment(marker, content) + data[2:]


def heavy(size: int) -> bytes:
    """A picture whose file without metadata has exactly this size: a table that is not used takes up the rest."""
    base = jpeg(at_least=LEAST - 6000, at_most=LEAST - 300)
    while size - len(base) > 300:
        base = with_segment(base, 0xDB, b"\x03" + bytes([1] * 64))
    fit = size - len(base)
    huffman = bytes([0x13]) + bytes([0, 0, 0, 0, 0, 0, 0, fit - 4 - 17] + [0] * 8) + bytes(fit - 4 - 17)
    return with_segment(base, 0xC4, huffman)


@pytest.mark.parametrize("off", [(0, 0), (10, 10), (-10, -10)])
def test_a_two_inch_photo_is_taken_and_its_pixels_stay_what_they_were(off: tuple[int, int]) -> None:
    data = jpeg((413 + off[0], 579 + off[1]))
    kept = photos.photo(encoded(data), RULES)
    assert (kept.width, kept.height) == (413 + off[0], 579 + off[1])
    assert not kept.grey
    assert pixels(kept.jpeg) == pixels(data)


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 4}])
def test_every_usual_coding_is_taken(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    assert pixels(photos.photo(encoded(data), RULES).jpeg) == pixels(data)


def test_a_grey_photo_is_for_the_desk_to_judge() -> None:
    assert photos.photo(encoded(jpeg(mode="L")), RULES).grey


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "请上传照片"),
        ("not base64!", "未能完整上传"),
        ("AAAAA", "未能完整上传"),
        (encoded(b"GIF89a" + bytes(30_000)), "必须是 jpg"),
        (encoded(b"\x89PNG\r\n\x1a\n" + bytes(30_000)), "必须是 jpg"),
        (encoded(b"RIFF0000WEBP" + bytes(30_000)), "必须是 jpg"),
        (encoded(b"%PDF-1.7" + bytes(30_000)), "必须是 jpg"),
        (encoded(b"<html>" + bytes(30_000)), "必须是 jpg"),
        (encoded(b"\xff\xd8\xff" + bytes(30_000)), "必须是 jpg"),
        (encoded(b""), "请上传照片"),
    ],
)
def test_what_is_no_jpeg_is_refused(typed: str, reason: str) -> None:
    with pytest.raises(Wrong, match=reason):
        photos.photo(typed, RULES)


def test_a_png_called_jpg_is_refused() -> None:
    file = BytesIO()
    Image.effect_noise((413, 579), 3).resize((100, 140)).save(file, "PNG")
    with pytest.raises(Wrong, match="改扩展名不算"):
        photos.photo(encoded(file.getvalue().ljust(LEAST, b"\0")), RULES)


@pytest.mark.parametrize("size", [LEAST, LEAST + 1, MOST - 1, MOST])
def test_the_edges_of_the_weight_are_inside(size: int) -> None:
    data = heavy(size)
    assert len(data) == size
    assert len(photos.photo(encoded(data), RULES).jpeg) == size


def test_one_byte_less_than_20_kb_is_refused() -> None:
    with pytest.raises(Wrong, match="照片文件不得小于 20 KB"):
        photos.photo(encoded(heavy(LEAST - 1)), RULES)


@pytest.mark.parametrize("size", [MOST + 1, MOST + 2, MOST + 3, MOST * 2])
def test_one_byte_more_than_45_kb_is_refused(size: int) -> None:
    with pytest.raises(Wrong, match="不得大于 45 KB"):
        photos.photo(encoded(heavy(size)), RULES)


@pytest.mark.parametrize("size", [(402, 579), (424, 579), (413, 568), (413, 590), (579, 413), (295, 413)])
def test_other_dimensions_are_refused_and_named(size: tuple[int, int]) -> None:
    with pytest.raises(Wrong, match=f"413×579 像素.*现为 {size[0]}×{size[1]} 像素"):
        photos.photo(encoded(jpeg(size)), RULES)


def test_a_picture_for_print_is_refused() -> None:
    with pytest.raises(Wrong, match="CMYK"):
        photos.photo(encoded(jpeg(mode="CMYK")), RULES)


def test_a_small_file_that_claims_65535_squared_pixels_is_refused_without_unpacking_it() -> None:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    started = time.process_time()
    with pytest.raises(Wrong, match="像素过多"):
        photos.photo(encoded(bytes(data)), RULES)
    assert time.process_time() - started < 0.05


def test_a_progressive_file_with_too_many_scans_is_refused() -> None:
    small = jpeg(at_least=10, at_most=19_000, progressive=True)
    at = small.rindex(b"\xff\xda")
    last_scan = small[at:-2]
    repeated = small[:-2] + last_scan * (photos.SCANS_MOST + 1) + small[-2:]
    with pytest.raises(Wrong, match="过于复杂"):
        photos.without_metadata(repeated)


@pytest.mark.parametrize("keep", [0.6, 0.95, 0.9999])
def test_a_picture_cut_in_the_middle_is_refused(keep: float) -> None:
    data = jpeg(at_least=39_000, at_most=45_000)
    with pytest.raises(Wrong, match="损坏或不完整"):
        photos.photo(encoded(data[: int(len(data) * keep)]), RULES)


def test_a_file_with_the_bones_of_a_picture_that_no_viewer_opens_is_refused() -> None:
    data = bytearray(jpeg())
    tables = data.index(b"\xff\xdb")
    length = int.from_bytes(data[tables + 2 : tables + 4], "big")
    without_tables = bytes(data[:tables] + data[tables + 2 + length :])
    assert photos.without_metadata(without_tables) == without_tables, "only unpacking it can tell"
    with pytest.raises(Wrong, match="损坏或不完整"):
        photos.photo(encoded(without_tables), RULES)


EXIF = Image.Exif()
EXIF[0x010F] = "camera of somebody"
EXIF.get_ifd(0x8825)[2] = (29.0, 33.0, 1.0)


def test_where_and_with_what_it_was_taken_is_cut_away() -> None:
    plain = jpeg()
    data = with_segment(plain, 0xE1, EXIF.tobytes())
    data = with_segment(data, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>somebody</x:xmpmeta>")
    data = with_segment(data, 0xED, b"Photoshop 3.0\0somebody")
    data = with_segment(data, 0xE2, b"ICC_PROFILE\0\1\1" + bytes(200))
    data = with_segment(data, 0xFE, "拍摄人：somebody".encode())
    assert Image.open(BytesIO(data)).getexif()[0x010F] == "camera of somebody", "the trap is real"
    kept = photos.photo(encoded(data), RULES).jpeg
    assert b"somebody" not in kept
    assert dict(Image.open(BytesIO(kept)).getexif()) == {}
    assert kept == plain


@pytest.mark.parametrize(
    "tail", [b"PK\x03\x04", b"<?php echo 1;", b"<html><script>", b"\xff\xd8\xff", bytes(5000)]
)
def test_what_follows_the_picture_is_cut_away(tail: bytes) -> None:
    plain = jpeg()
    assert photos.photo(encoded(plain + tail), RULES).jpeg == plain


def test_a_zip_hidden_behind_the_picture_is_gone() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("hidden.txt", "hidden")
    data = jpeg() + archive.getvalue()
    assert zipfile.is_zipfile(BytesIO(data)), "the trap is real"
    assert not zipfile.is_zipfile(BytesIO(photos.photo(encoded(data), RULES).jpeg))


def test_a_file_that_is_heavy_only_by_its_metadata_is_refused_with_that_reason() -> None:
    light = jpeg(at_least=12_000, at_most=19_000)
    data = with_segment(light, 0xE1, b"Exif\0\0" + bytes(10_000))
    assert LEAST < len(data) < MOST
    with pytest.raises(Wrong, match="附加数据后不得小于 20 KB"):
        photos.photo(encoded(data), RULES)


def test_colours_coded_as_rgb_keep_the_mark_that_says_so() -> None:
    data = jpeg(at_least=30_000, at_most=46_000, keep_rgb=True)
    assert b"Adobe" in data
    assert pixels(photos.without_metadata(data)) == pixels(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_done_to_a_photo_it_is_kept_whole_or_refused(data: st.DataObject) -> None:
    """Never anything but Wrong, whatever the bytes, and what is kept opens."""
    original = bytearray(jpeg())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(original) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                original[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del original[at : at + data.draw(st.integers(1, 400))]
            case _:
                original[at:at] = data.draw(st.binary(max_size=40))
    try:
        kept = photos.photo(encoded(bytes(original)), RULES)
    except Wrong:
        return
    with Image.open(BytesIO(kept.jpeg), formats=["JPEG"]) as image:
        image.load()
    assert photos.without_metadata(kept.jpeg) == kept.jpeg
    assert LEAST <= len(kept.jpeg) <= MOST


@given(st.binary(max_size=300))
def test_stray_bytes_behind_the_magic_number_are_refused(tail: bytes) -> None:
    with pytest.raises(Wrong):
        photos.photo(encoded((b"\xff\xd8\xff" + tail).ljust(LEAST, b"\0")), RULES)


def pixels(data: bytes) -> bytes:
    with Image.open(BytesIO(data)) as image:
        return image.tobytes()
