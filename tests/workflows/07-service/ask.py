"""Asks the socket about a number."""

import socket
import sys

client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(sys.argv[2].encode())
print(client.recv(100).decode(), end="")
