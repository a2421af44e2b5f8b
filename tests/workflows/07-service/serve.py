"""Answers every number with its square, on the socket named."""

import os
import socket
import sys

server = socket.socket(socket.AF_UNIX)
server.bind("server.part")
server.listen()
os.rename("server.part", sys.argv[1])
while True:
    client, _ = server.accept()
    client.sendall(f"{int(client.recv(100)) ** 2}\n".encode())
    client.close()
