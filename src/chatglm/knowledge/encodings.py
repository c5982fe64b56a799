"""Decode text files of unknown encoding, and remember which byte each character came from.

The encoding is found in this order: a byte order mark (BOM); the encoding that the caller declares, if the bytes are
valid in it; UTF-8, if the bytes are valid; else the encoding in which the text has the most frequent Chinese
characters. In a damaged file only the damaged bytes become U+FFFD.
"""

from __future__ import annotations

import codecs
import threading
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

from chatglm.errors import InputError

__all__ = ["ByteMap", "Decoded", "decode", "garbage_in", "inflated"]

ENCODINGS = ("utf-8", "gb18030", "big5", "utf-16-le", "utf-16-be")
"""The encodings that are compared when the encoding is guessed. If none fits, "windows-1252" is taken."""

_DECLARED = {
    **{
        name: name
        for name in ("ascii", "utf-8", "big5", "cp1252", "iso8859-1", "shift_jis", "euc_jp", "euc_kr", "koi8-r")
    },
    **dict.fromkeys(("gb2312", "gbk", "gb18030"), "gb18030"),
    **dict.fromkeys(("big5hkscs", "cp950"), "big5hkscs"),
}
"""Encodings that a file may declare, by Python's names, and the encodings that are used for them."""
_INFLATED = 1 << 28
_FEW_CONTROLS = 0.05
_SAMPLE = 1 << 16
"""Number of bytes from which the encoding is guessed."""
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, because it begins with the BOM of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多"
    "经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性"
    "知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产新己制身果加西斯月话合回特代内信表化老给世位次度门任"
    "常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场"
    "件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类"
    "這個們來為國說時會對過後裡種經麼學現當動還進樣開從實軍長機無與關點業將兩間問應戰頭體見產結書話門東聲論處義員條氣題電數報"
    "務場計統區隊決馬聽達強難權設記類總變見給"
)
"""Frequent characters, simplified and traditional. They are about a third of any modern Chinese text, and half of an
old one."""
_PUNCTUATION = frozenset("，。、；：？！“”‘’（）《》〈〉「」『』【】—…·　")


def _characters(encoding: str, first: int, last: int) -> frozenset[str]:
    """The two-byte characters of an encoding whose first byte is from `first` to `last`."""
    pairs = (bytes((high, low)) for high in range(first, last + 1) for low in range(0x40, 0xFF))
    return frozenset("".join(pair.decode(encoding, "ignore") for pair in pairs)) - frozenset(map(chr, range(128)))


@cache
def _usual() -> frozenset[str]:
    """The common characters (level 1) of GB 2312 and Big5."""
    return _characters("gb2312", 0xB0, 0xD7) | _characters("big5", 0xA4, 0xC6)


def inflated(data: bytes, most: int) -> bytes:
    """Decompress zlib data.

    Args:
        most: largest number of bytes of the result.

    Raises:
        InputError: the data are damaged or cut off, or the result would be larger.
    """
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(data, min(most, _INFLATED) + 1)
    except zlib.error as error:
        raise InputError(f"compressed data are damaged: {error}") from None
    if len(found) > most or not inflater.eof:
        raise InputError(f"compressed data are cut off, or have more than {most:,} bytes")
    return found


class ByteMap:
    """Maps characters of a text to byte positions in its file.

    Args:
        widths: the width of each character in the file, in bytes.
        begin: the byte at which the first character begins: 0, or the length of the BOM.
    """

    _BLOCK = 1024

    def __init__(self, widths: bytes, begin: int = 0) -> None:
        self._widths = widths
        self._begins = [begin]
        for at in range(0, len(widths), self._BLOCK):
            self._begins.append(self._begins[-1] + sum(widths[at : at + self._BLOCK]))

    def __len__(self) -> int:
        """The number of characters."""
        return len(self._widths)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ByteMap):
            return NotImplemented
        return self._widths == other._widths and self._begins[0] == other._begins[0]

    def __hash__(self) -> int:
        return hash((self._widths, self._begins[0]))

    def at(self, character: int) -> int:
        """The byte at which a character begins. `len(self)` is allowed, too: it gives the end of the text.

        Raises:
            IndexError: there is no such character.
        """
        if not 0 <= character <= len(self._widths):
            raise IndexError(f"character {character} of {len(self._widths)}")
        block = character // self._BLOCK
        return self._begins[block] + sum(self._widths[block * self._BLOCK : character])

    def span(self, start: int, end: int) -> tuple[int, int]:
        """(start, end) in bytes of the characters from `start` to before `end`.

        Raises:
            IndexError: there are no such characters.
        """
        return self.at(start), self.at(end)

    def to_bytes(self) -> bytes:
        """The map for a database: `begin` in 8 bytes, little endian, then the widths, compressed with zlib. For a text
        in one script this is about a thousandth of the text's size."""
        return self._begins[0].to_bytes(8, "little") + zlib.compress(self._widths, 1)

    @classmethod
    def from_bytes(cls, data: bytes, characters: int) -> ByteMap:
        """Read the result of `to_bytes`.

        Args:
            characters: the number of characters of the text.

        Raises:
            InputError: the data are not such a result.
        """
        widths = inflated(data[8:], characters)
        if len(widths) != characters:
            raise InputError(f"no map of bytes: it has {len(widths):,} characters, but the text {characters:,}")
        return cls(widths, int.from_bytes(data[:8], "little"))


@dataclass(frozen=True)
class Decoded:
    """The decoded text of a text file.

    Attributes:
        text: the text without BOM; line ends are `\\n`.
        encoding: Python's name of the encoding.
        bytes_of: maps the characters of `text` to bytes of the file.
        damaged: number of byte sequences that are not valid in this encoding; each became one U+FFFD.
    """

    text: str
    encoding: str
    bytes_of: ByteMap
    damaged: int = 0


def decode(data: bytes, encoding: str | None = None) -> Decoded:
    """Decode a text file.

    Args:
        data: the content of the file.
        encoding: the encoding that the file declares (HTML and e-mail do this). It is used if all bytes are valid in
            it. A BOM takes precedence.

    Raises:
        InputError: the bytes are not text: too many control characters or invalid bytes.
    """
    begin, found = _encoding_of(data, encoding)
    text, widths, damaged = _decoded(data[begin:], found)
    text, widths = _plain_line_ends(text, widths, len("\n".encode(found)))
    return Decoded(text, found, ByteMap(widths, begin), damaged)


def _encoding_of(data: bytes, declared: str | None) -> tuple[int, str]:
    for bom, name in _BOMS:
        if data.startswith(bom) and not (name == "utf-32-le" and len(data) % 4):
            return len(bom), name
    said = _known(declared) if declared else None
    if said and _is_valid(data, said):
        return 0, said
    sample = data[:_SAMPLE]
    # Texts from PDF files often have some NULs. In UTF-16, half the bytes of Latin text are zero.
    if (b"\0" not in sample or _share_of_controls(sample) <= _FEW_CONTROLS) and _is_valid(data, "utf-8"):
        return 0, "utf-8"
    return 0, _most_plausible(data)


def _known(name: str) -> str | None:
    try:
        found = codecs.lookup(name.strip().strip("\"'"))
    except (LookupError, ValueError):
        return None
    return _DECLARED.get(found.name)


def _is_valid(data: bytes, name: str) -> bool:
    try:
        data.decode(name)
    except UnicodeDecodeError:
        return False
    return True


def _most_plausible(data: bytes) -> str:
    sample = data[:_SAMPLE]
    zeros = sample.count(0)
    best, score = "windows-1252", 0.0
    for name in ENCODINGS:
        if zeros and not name.startswith("utf-16") and zeros > len(sample) / 1000:
            continue
        if (found := _plausibility(sample, name)) > score:
            best, score = name, found
    if best == "windows-1252" and _share_of_controls(sample) > _FEW_CONTROLS:
        raise InputError("it is not text: its bytes are not characters of UTF-8, GB18030, Big5 or UTF-16")
    return best


def _plausibility(sample: bytes, name: str) -> float:
    """How plausible an encoding is: at most 1. If it is 0 or less, the text is not in this encoding."""
    text = sample.decode(name, "replace")
    if len(sample) == _SAMPLE:
        text = text.removesuffix("\ufffd")  # the sample may end inside a character
    return sum(_weight(character) for character in text) / len(text) if text else 0.0


@lru_cache(1 << 16)
def _weight(character: str) -> float:
    """How much a decoded character supports its encoding: from 1 (frequent) to -5 (not valid)."""
    if character in _FREQUENT or character in _PUNCTUATION or character in "\t\n\r\f":
        return 1.0
    if character < "\x80":
        return 0.8 if " " <= character < "\x7f" else -2.0
    if character in _usual():
        return 0.3
    if "\u3040" <= character <= "\u30ff" or "\uff00" <= character <= "\uff5e":
        return 0.1  # kana, full-width letters
    if "\u4e00" <= character <= "\u9fff":
        return -0.3
    if character == "\ufffd":
        return -5.0
    return -1.0 if unicodedata.category(character) in ("Co", "Cn", "Cs", "Cc") else -0.5


def _share_of_controls(sample: bytes) -> float:
    return sum(byte < 32 and byte not in b"\t\n\r\f" for byte in sample) / max(len(sample), 1)


# Decoding with the width of each character


def _decoded(data: bytes, name: str) -> tuple[str, bytes, int]:
    texts: list[str] = []
    widths: list[bytes] = []
    damaged = 0
    for text, raw in _runs(data, name):
        if text is None:
            damaged += 1
            texts.append("\ufffd")
            widths.append(bytes([len(raw)]))
        else:
            texts.append(text)
            widths.append(_widths_of(text, raw, name))
    return "".join(texts), b"".join(widths), damaged


def _runs(data: bytes, name: str) -> Iterator[tuple[str | None, bytes]]:
    """Split data into valid parts (text, bytes) and invalid parts (None, bytes), in order."""
    try:
        yield data.decode(name), data
        return
    except UnicodeDecodeError:
        pass
    at = 0
    for start, end in _errors_in(data, name):
        if at < start:
            yield data[at:start].decode(name), data[at:start]
        yield None, data[start:end]
        at = end
    yield data[at:].decode(name), data[at:]


class _Noted(threading.local):
    """The invalid byte sequences of the data that this thread is decoding."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.most = 0


_noted = _Noted()


def _note(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    _noted.spans.append((error.start, error.end))
    if len(_noted.spans) > _noted.most:
        raise error
    return "\ufffd", error.end


codecs.register_error("chatglm.note", _note)


def _errors_in(data: bytes, name: str) -> list[tuple[int, int]]:
    _noted.spans, _noted.most = [], 1000 + len(data) // 50
    try:
        data.decode(name, "chatglm.note")
        return _noted.spans
    except UnicodeDecodeError:
        raise InputError(f"it is not text, or is damaged: more than {_noted.most:,} places are not {name}") from None
    finally:
        _noted.spans = []


def _widths_of(text: str, raw: bytes, name: str) -> bytes:
    if name == "utf-8":
        return raw.translate(_UTF8_WIDTHS, _UTF8_CONTINUATIONS)
    if name == "windows-1252" or len(text) == len(raw):
        return b"\1" * len(text)
    widths = text.translate({ord(each): chr(len(each.encode(name))) for each in set(text)}).encode("latin-1")
    return widths if sum(widths) == len(raw) else _widths_one_by_one(raw, name)


_UTF8_WIDTHS = bytes(1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4 for lead in range(256))
_UTF8_CONTINUATIONS = bytes(range(0x80, 0xC0))


def _widths_one_by_one(raw: bytes, name: str) -> bytes:
    """Like `_widths_of`, byte by byte: for encodings in which a character has encoded forms of different width."""
    decoder = codecs.getincrementaldecoder(name)()
    widths = bytearray()
    since = 0
    for at in range(len(raw)):
        got = decoder.decode(raw[at : at + 1])
        since += 1
        for place in range(len(got)):
            widths.append(since if place == 0 else 0)
            since = 0
    if since and widths:
        widths[-1] += since
    return bytes(widths)


def _plain_line_ends(text: str, widths: bytes, unit: int) -> tuple[str, bytes]:
    """Replace `\\r\\n` and a single `\\r` by `\\n`, and adapt the widths.

    Args:
        unit: bytes of one line end character in this encoding.
    """
    if "\r" not in text:
        return text, widths
    kept: list[bytes] = []
    at = 0
    for line in text.split("\r\n"):
        kept.append(widths[at : at + len(line)])
        at += len(line) + 2
    return text.replace("\r\n", "\n").replace("\r", "\n"), bytes([2 * unit]).join(kept)


# Garbage

_WINDOW = 50
_PLAUSIBLE = 0.35
"""Two neighbouring windows whose characters have a smaller mean weight are mojibake. Lists of rare names have about
.40, ordinary prose more than .6."""


def garbage_in(text: str) -> list[tuple[int, int]]:
    """Find parts of a text that look like the result of a wrong encoding (mojibake).

    Returns:
        (start, end) in characters, in order; each has about 100 characters or more.
    """
    values = {ord(each): chr(round(10 * (max(_sense(each), -2.0) + 2.0))) for each in set(text)}
    blocks = text.translate(values).encode("latin-1")
    sums = [sum(blocks[at : at + _WINDOW]) for at in range(0, len(blocks) - _WINDOW + 1, _WINDOW)]
    least = round(10 * (_PLAUSIBLE + 2.0) * 2 * _WINDOW)
    found: list[tuple[int, int]] = []
    for n, two in enumerate(map(sum, pairwise(sums))):
        if two >= least:
            continue
        start, end = n * _WINDOW, (n + 2) * _WINDOW
        if found and found[-1][1] >= start:
            start = found.pop()[0]
        found.append((start, end))
    return found


def _sense(character: str) -> float:
    """The weight of a character in `garbage_in`: the lower, the more the text looks like mojibake."""
    if "\xc0" <= character <= "\xff":
        return 0.0  # Chinese read as Latin-1 consists mostly of these; in European languages they are few
    if "\u2500" <= character <= "\u25ff":
        return -0.5  # box drawing characters and blocks
    if "\u4e00" <= character <= "\u9fff" or character < "\x80" or character in _PUNCTUATION:
        return _weight(character)
    return 0.8 if unicodedata.category(character)[0] in "LMNZ" else max(_weight(character), -2.0)
