"""The demo's end: a mail goes through an outbox to a mail server of the demo's own, and is shown as it arrived."""

import json
import subprocess
import sys
from pathlib import Path

import coord
from coord.mail import MailState, Message

SERVER = Path(__file__).parents[2] / "tests/servers/smtp.py"

url = sys.argv[1]
with subprocess.Popen(
    [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
) as server, coord.connect(url) as client:
    port = json.loads(server.stdout.readline())["port"]
    mailer = client.mailer(f"smtp://127.0.0.1:{port}?tls=none", sender="demo@example.org")
    outbox = client.outbox("demo", mailer)
    mail = Message(to="Ann <ann@example.org>", subject="All is well", text="The demo has ended.")
    enqueued = outbox.enqueue(mail)
    with outbox.start():
        for _ in outbox.watch():
            if outbox.get(enqueued.id).state == MailState.SENT:
                break
    mailer.close()
    print(json.dumps({"messages": True}), file=server.stdin, flush=True)
    (arrived,) = json.loads(server.stdout.readline())["messages"]
    print(f"a mail has arrived: to {arrived['rcpt'][0]}, '{arrived['subject']}', {arrived['message_id']}")
    server.kill()
