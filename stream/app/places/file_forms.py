"""Detect by its first bytes a file that is not JSON lines, or not text: one error for the file, not one per line."""

from typing import Final

from tagbus.stream.errors import UserError

_LINES: Final = "expected JSON lines in UTF-8, one object a line"
# Sources: RFC 1952, RFC 8878, bzip2, xz and ZIP file formats; Apache Parquet and Avro; Unicode, byte order mark.
_SIGNS: Final = (
    (b"\x1f\x8b", "is compressed by gzip", "`gzip -dc {} | tagbus ... -`"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd", "`zstd -dc {} | tagbus ... -`"),
    (b"BZh", "is compressed by bzip2", "`bzip2 -dc {} | tagbus ... -`"),
    (b"\xfd7zXZ\x00", "is compressed by xz", "`xz -dc {} | tagbus ... -`"),
    (b"PK\x03\x04", "is a ZIP archive", "`unzip -p {} | tagbus ... -`"),
    (b"PAR1", "is a Parquet file", "export it first"),
    (b"Obj\x01", "is an Avro file", "export it first"),
    (b"\xff\xfe", "is in UTF-16", "`iconv -f UTF-16 -t UTF-8 {} | tagbus ... -`"),
    (b"\xfe\xff", "is in UTF-16", "`iconv -f UTF-16 -t UTF-8 {} | tagbus ... -`"),
)


def require_lines(name: str, first: bytes) -> None:
    """Raises UserError if a file begins like another format; `first` is its first line."""
    require_text(name, first, _LINES)
    start = first.strip()
    if start.startswith(b"["):
        raise UserError(f"{name} is one JSON list, {_LINES}: `jq -c '.[]' {name} | tagbus ... -`")
    if start == b"{":
        raise UserError(f"{name} has its JSON over several lines, {_LINES}: `jq -c . {name} | tagbus ... -`")


def require_text(name: str, first: bytes, expected: str = "expected text in UTF-8") -> None:
    """Raises UserError if a file begins like one that is compressed or not in UTF-8."""
    for sign, form, advice in _SIGNS:
        if first.startswith(sign):
            raise UserError(f"{name} {form}, {expected}: {advice.format(name)}")
