"""Files to blocks of bytes, decompressed as they stream."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from tunewright.data.formats.lines import BrokenError

BLOCK_BYTES = 2**18
# A Zstandard block of four bytes can stand for 128 KiB, and its decoder takes no limit on what it gives:
# pieces this small keep that under 16 MiB.
_PIECE_BYTES = 512


def blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of a file, that of `.gz` and `.zst` files decompressed.

    Raises:
        BrokenError: The compressed data is damaged, ends early, or is not what the suffix says.
        OSError: The system does not give the file.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        yield from _gzip(path)
    elif suffix == ".zst":
        yield from _zstandard(path)
    else:
        with path.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block


def head_of(stream: Iterator[bytes], size: int) -> tuple[list[bytes], bool]:
    """Return the first blocks, `size` bytes or a little more, and whether they are all there is."""
    taken: list[bytes] = []
    held = 0
    for block in stream:
        taken.append(block)
        held += len(block)
        if held >= size:
            return taken, False
    return taken, True


def _gzip(path: Path) -> Iterator[bytes]:
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as stream:
        while True:
            try:
                block = stream.read1(BLOCK_BYTES)
            except EOFError as error:
                raise BrokenError("the gzip data ends early") from error
            except (gzip.BadGzipFile, zlib.error) as error:
                raise BrokenError(f"the gzip data is damaged ({error})") from error
            if not block:
                return
            yield block


def _zstandard(path: Path) -> Iterator[bytes]:
    decoder = zstandard.ZstdDecompressor()
    with path.open("rb") as stream:
        # The stream reader of the library takes a file that ends early for a whole one.
        frame, begun = decoder.decompressobj(), False
        while piece := stream.read(_PIECE_BYTES):
            while piece:
                if frame.eof:
                    frame = decoder.decompressobj()
                begun = True
                try:
                    block = frame.decompress(piece)
                except zstandard.ZstdError as error:
                    raise BrokenError(f"the Zstandard data is damaged ({error})") from error
                piece = frame.unused_data if frame.eof else b""
                if block:
                    yield block
        if begun and not frame.eof:
            raise BrokenError("the Zstandard data ends early")
