"""Files of events as TensorBoard reads them: records of protocol buffers with checksums."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import text as text_summary

_VERSION = "brain.Event:2"

# Colours of a picture by the number of its channels, as TensorBoard counts them: red, green, blue and opacity.
_RGBA = 4


def event_path(folder: Path) -> Path:
    """Returns the path of a file of events that begins now; TensorBoard reads the files of a folder by their names."""
    return folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"


def header(*, from_step: int) -> bytes:
    """Returns the records that a file of events begins with.

    Args:
        from_step: Step from which on values of earlier files no longer count: a run that resumes computes them again.
    """
    start = Event(wall_time=time.time(), step=from_step, session_log=SessionLog(status=SessionLog.START))
    return _record(Event(wall_time=time.time(), file_version=_VERSION)) + _record(start)


def scalars(step: int, values: Mapping[str, float]) -> bytes:
    """Returns the record of numbers of a step.

    Args:
        step: Step that they belong to.
        values: Numbers by name.
    """
    shown = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    return _record(Event(wall_time=time.time(), step=step, summary=Summary(value=shown)))


def code_text(step: int, tag: str, text: str) -> bytes:
    """Returns the record of a text that TensorBoard shows line by line, as it is.

    Args:
        step: Step that the text belongs to.
        tag: Name of the text.
        text: The text.
    """
    # TensorBoard takes a text for Markdown, in which lines that are indented by four are code.
    code = "\n".join(f"    {line}" for line in text.splitlines())
    return _record(Event(wall_time=time.time(), step=step, summary=text_summary(tag, code)))


def pictures(step: int, named: Mapping[str, bytes]) -> bytes:
    """Returns the record of pictures.

    Args:
        step: Step that they belong to.
        named: Pictures as PNG, with red, green, blue and opacity, by name.
    """
    shown = [Summary.Value(tag=name, image=_image(png)) for name, png in named.items()]
    return _record(Event(wall_time=time.time(), step=step, summary=Summary(value=shown)))


def _image(png: bytes) -> Summary.Image:
    # Width and height stand in the first chunk of every PNG, after its signature, its length and its name.
    width, height = struct.unpack(">II", png[16:24])
    return Summary.Image(width=width, height=height, colorspace=_RGBA, encoded_image_string=png)


def _record(event: Event) -> bytes:
    # The format is TFRecord's: length, its checksum, the bytes, their checksum.
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
