"""A proxy that records every byte which a studio sends to a browser, uncompressed."""

import re
import socket
import threading


class Recorder:
    """Listens on a port of its own and passes everything on to the studio at `port`."""

    def __init__(self, port: int) -> None:
        self._studio = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._heard: list[bytearray] = []
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def heard(self) -> bytes:
        """All that was sent to the browser so far, connection by connection."""
        with self._lock:
            return b"\n".join(bytes(part) for part in self._heard)

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                browser, _ = self._server.accept()
            except OSError:
                return  # closed
            studio = socket.create_connection(("127.0.0.1", self._studio))
            heard = bytearray()
            with self._lock:
                self._heard.append(heard)
            for source, target, record in ((browser, studio, None), (studio, browser, heard)):
                threading.Thread(
                    target=self._pass_on, args=(source, target, record), daemon=True
                ).start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, record: bytearray | None
    ) -> None:
        try:
            while data := source.recv(65536):
                if record is None:
                    # Of the same length, so that no length has to be mended.
                    data = re.sub(
                        rb"(?i)(accept-encoding: )([^\r\n]*)",
                        lambda found: found[1] + b"identity".ljust(len(found[2])),
                        data,
                    )
                else:
                    with self._lock:
                        record += data
                target.sendall(data)
        except OSError:
            pass  # one side has hung up
        finally:
            for end in (source, target):
                end.close()
