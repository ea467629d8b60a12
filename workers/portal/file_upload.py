"""The kind `file_upload`: makes one object of what has come, and checks it on the way.

Result: `{fileId, fileName, size, sha256, contentType, path}`. The parts are removed once the file is noted in
SQL, so a worker that dies at any point leaves what another needs.
"""

import asyncio
import codecs
import hashlib

import filetype
import msgspec
from obstore import Bytes

from storage.files import File, parts_folder
from workers.portal.kinds import Context, Limits, Refused
from workers.portal.room import PortalRoom, kinds

SNIFFED_BYTES = 8192
TEXT = "text/plain"
UNKNOWN = "application/octet-stream"


class FileUpload(msgspec.Struct, frozen=True):
    """What the user said of the file."""

    file_name: str
    size: int
    sha256: str | None


async def undo(context: Context[PortalRoom], file: FileUpload) -> None:
    """Remove what there is of the file, unless it is a dead letter: to be done again it needs the parts."""
    state = await context.room.tasks.get(context.task_id)
    if state is not None and state.letter is not None:
        return
    found = await context.room.files.get(context.task_id)
    if found is not None:
        await context.room.files.remove(found)


@kinds.kind("file_upload", FileUpload, Limits(concurrency=8, time_limit_s=1800), undo)
async def upload_file(context: Context[PortalRoom], file: FileUpload) -> dict[str, object]:
    """Put the parts together. Raises Refused where they are not what was announced."""
    files = context.room.files
    found = await files.get(context.task_id)
    if found is None:
        raise Refused("The bytes of this file are not there any more.")
    if found.stored_at is None:
        digest, content_type = await _put_together(context, found)
        if file.sha256 not in {None, digest}:
            raise Refused(f"The file's SHA-256 is {digest}, and {file.sha256} was announced.")
        await files.stored(context.task_id, digest, content_type)
        found = await files.get(context.task_id) or found
    await files.remove_parts(context.task_id)
    return {
        "fileId": found.file_id,
        "fileName": found.file_name,
        "size": found.size_bytes,
        "sha256": found.sha256,
        "contentType": found.content_type,
        "path": found.object_name,
    }


async def _put_together(context: Context[PortalRoom], file: File) -> tuple[str, str]:
    """Stream the parts into one object. Answers its SHA-256 and type."""
    objects = context.room.objects
    parts = await objects.names(parts_folder(file.file_id))
    size = sum(size for _, size in parts)
    if size != file.size_bytes:
        raise Refused(f"{size} bytes have come, and {file.size_bytes} were announced.")
    names = [name for name, _ in parts]
    digest, done, head = hashlib.sha256(), 0, b""
    async with objects.writing(file.object_name) as writer:
        piece = await objects.get(names[0]) if names else Bytes()
        for following in [*names[1:], None]:
            if len(head) < SNIFFED_BYTES:
                head += bytes(memoryview(piece)[: SNIFFED_BYTES - len(head)])
            done += len(piece)
            # In a thread: at 1 GB/s a piece would keep the loop for a millisecond.
            digesting = asyncio.to_thread(digest.update, piece)
            reading = _nothing() if following is None else objects.get(following)
            _, _, piece = await asyncio.gather(digesting, writer.write(piece), reading)
            context.progress(100 * done / max(1, size))
    return digest.hexdigest(), sniff(head)


async def _nothing() -> Bytes:
    return Bytes()


def sniff(head: bytes) -> str:
    """The media type of a file that begins so, told by its bytes and not by its name."""
    kind = filetype.guess_mime(head)
    if kind is not None:
        return str(kind)
    try:
        # The last character may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < SNIFFED_BYTES)
    except UnicodeDecodeError:
        return UNKNOWN
    return UNKNOWN if b"\0" in head else TEXT
