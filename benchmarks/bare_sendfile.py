"""Serves one file by blocking sendfile(2), to each who connects: what a download could reach at most."""

from __future__ import annotations

import os
import socket
import sys


def main(path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, open(path, "rb") as file:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        size = os.fstat(file.fileno()).st_size
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
                at = 0
                while at < size:
                    at += os.sendfile(connection.fileno(), file.fileno(), at, size - at)


if __name__ == "__main__":
    main(sys.argv[1])
