"""Object stores on this machine for tests: S3 by moto, GCS by its emulator, and stores that are silent or refuse."""

import contextlib
import importlib.util
import io
import logging
import os
import socket
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from data_pipelines.buckets.remote_folder import RemoteFolder

#: Packages that a kind of store needs: the driver and the server.
NEEDS = {"s3": ("s3fs", "moto", "flask", "flask_cors"), "gs": ("gcsfs", "gcp_storage_emulator")}

#: A secret that no message may show.
SECRET = "wJalrXUtnFEMI-not-to-be-shown"


def skip_without(*schemes):
    """Skips a test, with a reason, where a driver or the store that it is tested against is not installed."""
    for scheme in schemes:
        lacking = [name for name in NEEDS[scheme] if importlib.util.find_spec(name) is None]
        if lacking:
            pytest.skip(
                f"{scheme}:// is not tested here: {', '.join(lacking)} not installed (pip install -e .[test,test-s3])"
            )


@contextlib.contextmanager
def environment(**values):
    """Sets variables of the environment, which processes started meanwhile have too, and forgets open connections."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values):
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    for scheme in NEEDS:
        if all(importlib.util.find_spec(name) for name in NEEDS[scheme][:1]):
            fsspec.get_filesystem_class(scheme).clear_instance_cache()


def at_s3(port):
    """Variables of the environment by which drivers find an S3 store on this machine."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }


def at_gs(port):
    """Variables of the environment by which drivers find a GCS store on this machine."""
    return {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "NO_GCE_CHECK": "true"}


@contextlib.contextmanager
def store(scheme):
    """Runs a store on this machine; the value is the address of a new bucket."""
    with switched_store(scheme) as (bucket, _):
        yield bucket


@contextlib.contextmanager
def switched_store(scheme):
    """Runs a store on this machine; the value is the address of a new bucket, and the switch before the store."""
    skip_without(scheme)
    # Each request of a store is a line of its log, and the driver of GCS says each time that it has no credentials.
    for name in ("werkzeug", "gcp_storage_emulator", "gcsfs", "google.auth"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _s3() if scheme == "s3" else _gs() as port, Switch(port) as switch, environment(**at(scheme, switch.port)):
        bucket = f"ecgs-{uuid.uuid4().hex[:12]}"
        fsspec.filesystem(scheme).mkdir(bucket)
        yield f"{scheme}://{bucket}", switch


class Switch:
    """A port whose connections go to a store, until they are sent elsewhere."""

    def __init__(self, port):
        self.store, self._target = port, port
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listening.getsockname()[1]
        self._open = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listening.close()
        self.to(self.store)

    def to(self, port):
        """Sends all further connections to another port, and ends those that are open."""
        self._target = port
        while self._open:
            with self._open.pop() as connection, contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one, other):
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _s3():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


@contextlib.contextmanager
def _gs():
    from gcp_storage_emulator import server as emulator

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=None)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gcp_storage_emulator.server._read_data", _with_whole_contents(emulator._read_data))
            yield port
    finally:
        server.stop()


def _with_whole_contents(read):
    """The emulator's parser of mail takes a carriage return at the end of a file for a part of the boundary."""

    def whole(handler, query):
        stream, taken = handler.rfile, io.BytesIO()
        handler.rfile = _Noted(stream, taken)
        try:
            found = read(handler, query)
        finally:
            handler.rfile = stream
        parts = taken.getvalue().split(b"\n--==0==")
        if isinstance(found, dict) and "content-type" in found and len(parts) == 3:
            found["content"] = parts[1].split(b"\n\n", 1)[1]
        return found

    return whole


class _Noted:
    """A stream, of which is noted what was read."""

    def __init__(self, stream, taken):
        self._stream, self._taken = stream, taken

    def read(self, size):
        data = self._stream.read(size)
        self._taken.write(data)
        return data

    def readline(self):
        return self._stream.readline()


def at(scheme, port):
    """Variables of the environment by which drivers find a store on this machine."""
    return at_s3(port) if scheme == "s3" else at_gs(port)


@contextlib.contextmanager
def silent():
    """Runs a store that takes every connection and never answers; the value is its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()[1]


@contextlib.contextmanager
def refusing():
    """Runs a store that lets nobody in; the value is its port."""

    class Refusal(BaseHTTPRequestHandler):
        def refuse(self):
            # Clients of S3 read XML, those of GCS JSON.
            body = b"<Error><Code>InvalidAccessKeyId</Code><Message>There is no such key.</Message></Error>"
            if "/storage/v1/" in self.path:
                body = b'{"error": {"code": 403, "message": "Forbidden: the caller has no access"}}'
            self.send_response(403)
            self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = refuse  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def put(folder, address):
    """Copies a local folder into a bucket, as a store's own tools do."""
    system, root = fsspec.core.url_to_fs(address)
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            system.put_file(str(path), f"{root}/{path.relative_to(folder).as_posix()}")


class Interrupted(BaseException):
    """In place of a kill."""


def die_at(patch, name, calls, at):
    """Has the call of number `at`, counted by `calls`, of a method of remote folders end as by a kill."""
    original = getattr(RemoteFolder, name)

    def deadly(self, *arguments, **options):
        if next(calls) == at:
            raise Interrupted
        return original(self, *arguments, **options)

    patch.setattr(RemoteFolder, name, deadly)
