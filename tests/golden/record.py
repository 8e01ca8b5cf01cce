#!/usr/bin/env python3
"""Records what a client and a broker say to each other: record.py LISTEN_PORT BROKER FILE

A proxy on 127.0.0.1. Start the broker on another port or loopback address, BROKER (HOST:PORT), so that it advertises
127.0.0.1:LISTEN_PORT; let the client use that; then interrupt.
FILE gets one line a frame, `request|reply API_KEY API_VERSION HEX` (without the frame's size): of each API and version
the first few that are not large.
"""
import signal
import socket
import struct
import sys
import threading

FRAMES_OF_A_KIND, SIZE_MAX = 3, 1500
kept = {}
lock = threading.Lock()


def keep(kind, key, version, frame):
    if len(frame) <= SIZE_MAX:
        with lock:
            frames = kept.setdefault((key, version, kind), [])
            if frame not in frames and len(frames) < FRAMES_OF_A_KIND:
                frames.append(frame)


def frames_of(source, sink):
    """Forwards frame by frame, giving each."""
    data = b""
    while chunk := source.recv(1 << 16):
        data += chunk
        while len(data) >= 4 and len(data) >= 4 + (size := struct.unpack(">i", data[:4])[0]):
            frame, data = data[4 : 4 + size], data[4 + size :]
            yield frame
            sink.sendall(struct.pack(">i", size) + frame)
    sink.shutdown(socket.SHUT_WR)


def run(direction):
    try:
        direction()
    except OSError:
        pass  # one side hung up; the other direction sees it too


def serve(client, address):
    broker = socket.create_connection(address)
    asked = {}

    def requests():
        for frame in frames_of(client, broker):
            key, version, correlation_id = struct.unpack(">hhi", frame[:8])
            asked[correlation_id] = key, version
            keep("request", key, version, frame)

    def replies():
        for frame in frames_of(broker, client):
            keep("reply", *asked[struct.unpack(">i", frame[:4])[0]], frame)

    for direction in (requests, replies):
        threading.Thread(target=run, args=(direction,), daemon=True).start()


def finish(*_):
    with lock, open(sys.argv[3], "w") as out:
        for (key, version, kind), frames in sorted(kept.items(), key=lambda item: (item[0][0], item[0][1], item[0][2] == "reply")):
            for frame in frames:
                out.write(f"{kind} {key} {version} {frame.hex()}\n")
    sys.exit(0)


signal.signal(signal.SIGINT, finish)
signal.signal(signal.SIGTERM, finish)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
host, port = sys.argv[2].rsplit(":", 1)
while True:
    serve(listener.accept()[0], (host, int(port)))
