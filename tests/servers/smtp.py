"""A real mail server (aiosmtpd) for tests, that can be told to misbehave at every step of the dialogue.

    smtp.py [--certificate FILE] [--login USER:PASSWORD] [--no-utf8] [--no-starttls]

It listens on free loopback ports: `plain` and `starttls` (the same server, with STARTTLS offered), and `implicit` where
there is a certificate. The first line on stdout is JSON with the ports. After that each line on stdin is a request in
JSON, and each is answered by one line of JSON; at the end of stdin the server ends.

    {"rule": {"at": STEP, "do": ACTION, "times": N, "for": ADDRESS}}   misbehave N times (default: always)
    {"forget": true}                                                   no rules and no messages any more
    {"wait": N}                                                        answered when N messages have arrived
    {"messages": true}                                                 what has arrived, as Python's email package reads it
    {"log": true}                                                      the commands that came, and on which connection

STEP is connect, ehlo, starttls, tls (before the handshake), auth, challenge (instead of one), mail, rcpt, data (instead
of 354), content (after 354), dot (after all of the message), noop, rset or quit. ACTION is drop (close the connection),
stall (say nothing more), "wait N" (do it N milliseconds later; not at tls and dot), or a reply such as "450 4.2.0 later";
one with 421 also closes. At `dot` also "until N": answer when N messages have arrived; and with
`taken`, as in "taken drop", the message is recorded before that. At `tls` also "inject REPLY": puts that behind the
agreement to STARTTLS, in clear, as somebody on the way could.
"""

import argparse
import asyncio
import base64
import email
import email.policy
import email.utils
import json
import logging
import ssl
import sys
import warnings
from email.header import decode_header, make_header

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

STEPS = ("ehlo", "starttls", "auth", "mail", "rcpt", "data", "noop", "rset", "quit")


class Book:
    """What has arrived, and what is to go wrong."""

    def __init__(self):
        self.rules = []
        self.messages = []
        self.log = []
        self.connections = 0
        self.pause = 0.0
        self.arrived = asyncio.Condition()

    def action(self, step, argument):
        for rule in self.rules:
            if rule["at"] == step and rule.get("for", "").lower() in (argument or "").lower() and rule.get("times", 1):
                if "times" in rule:
                    rule["times"] -= 1
                return rule["do"]
        return None

    async def record(self, connection, envelope):
        async with self.arrived:
            self.messages.append(read(connection, envelope))
            self.arrived.notify_all()


def read(connection, envelope):
    raw = envelope.original_content
    # The package reads headers in UTF-8 only from text.
    utf8 = "SMTPUTF8" in envelope.mail_options
    if utf8:
        message = email.message_from_string(raw.decode(), policy=email.policy.SMTPUTF8)
    else:
        message = email.message_from_bytes(raw, policy=email.policy.default)
    body = {}
    for kind in ("plain", "html"):
        part = message.get_body(preferencelist=(kind,))
        body[kind] = part and part.get_content()
    files = []
    for part in message.walk():
        if part.is_multipart() or not (part.get_filename() or part["Content-ID"]):
            continue
        content = part.get_payload(decode=True)
        files.append(
            {
                "name": part.get_filename(),
                "type": part.get_content_type(),
                "disposition": part.get_content_disposition(),
                "cid": part["Content-ID"] and str(part["Content-ID"]),
                "base64": base64.b64encode(content).decode(),
            }
        )
    defects = [repr(defect) for part in message.walk() for defect in part.defects]
    for value in message.values():
        defects += [repr(defect) for defect in getattr(value, "defects", ())]
    if utf8:
        defects = [defect for defect in defects if not defect.startswith("NonASCIILocalPart")]
    # The package's newer interface puts spaces between the encoded words of a name; the older one does not.
    older = email.message_from_string(raw.decode()) if utf8 else email.message_from_bytes(raw)

    def people(name):
        pairs = email.utils.getaddresses([str(value) for value in older.get_all(name, [])])
        return [[str(make_header(decode_header(name))), address] for name, address in pairs]

    return {
        "connection": connection,
        "mail_from": envelope.mail_from,
        "mail_options": envelope.mail_options,
        "rcpt": envelope.rcpt_tos,
        "from": people("From"),
        "to": people("To"),
        "cc": people("Cc"),
        "reply_to": people("Reply-To"),
        "subject": str(message["Subject"] or ""),
        "message_id": str(message["Message-ID"]).strip(),
        "headers": [[name, str(value)] for name, value in message.items()],
        "structure": structure(message),
        "text": body["plain"],
        "html": body["html"],
        "files": files,
        "defects": defects,
        "raw": base64.b64encode(raw).decode(),
    }


def structure(part):
    inside = [structure(one) for one in part.iter_parts()] if part.is_multipart() else []
    return [part.get_content_type(), *inside]


class Handler:
    def __init__(self, book):
        self.book = book

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        if self.book.pause:
            await asyncio.sleep(self.book.pause)
        action = self.book.action("dot", ",".join(envelope.rcpt_tos))
        if action is None:
            await self.book.record(server.number, envelope)
            await asyncio.sleep(self.book.pause)
            return "250 2.0.0 taken"
        if action.startswith("taken "):
            await self.book.record(server.number, envelope)
            action = action.removeprefix("taken ")
        if action.startswith("until "):
            async with self.book.arrived:
                await self.book.arrived.wait_for(lambda: len(self.book.messages) >= int(action.split()[1]))
            return "250 2.0.0 taken at last"
        if action == "stall":
            await asyncio.Event().wait()
        if action == "drop":
            server.transport.abort()
            return "451 nobody reads this"
        return action

    async def auth_XOAUTH2(self, server, arguments):  # noqa: N802
        said = base64.b64decode(arguments[1]).decode()
        user, token = server.login
        if said == f"user={user}\x01auth=Bearer {token}\x01\x01":
            return AuthResult(success=True, auth_data=LoginPassword(user.encode(), token.encode()))
        await server.challenge_auth(json.dumps({"status": "401"}))
        return AuthResult(success=False, handled=False)


class Server(SMTP):
    def __init__(self, book, login, **more):
        self.book = book
        self.login = login
        book.connections += 1
        self.number = book.connections
        super().__init__(Handler(book), **more)

    async def misbehave(self, step, argument=None):
        """Does what a rule says for this step; whether the step is to be left out then."""
        action = self.book.action(step, argument)
        if action is None:
            return False
        if action.startswith("wait "):
            await asyncio.sleep(int(action.removeprefix("wait ")) / 1000)
            return False
        await self.do(action)
        if step == "connect":
            self.transport.close()
            raise ConnectionResetError
        return True

    async def do(self, action):
        if action == "stall":
            self.transport.pause_reading()
            await asyncio.Event().wait()
        if action == "drop":
            self.transport.abort()
            raise ConnectionResetError
        await super().push(action)
        if action.startswith("421"):
            self.transport.close()
            raise ConnectionResetError

    async def push(self, status):
        text = status if isinstance(status, str) else status.decode(errors="replace")
        if text.startswith("220 ") and text.endswith("greeting") and await self.misbehave("connect"):
            return
        if text.startswith("334") and await self.misbehave("challenge"):
            return
        if text.startswith("220 Ready"):
            action = self.book.action("tls", None) or ""
            injected = f"\r\n{action.removeprefix('inject ')}" if action.startswith("inject ") else ""
            await super().push(text + injected)
            if action in ("drop", "stall"):
                await self.do(action)
            return
        await super().push(status)
        if text.startswith("354"):
            await self.misbehave("content")


def step(name):
    original = getattr(SMTP, f"smtp_{name.upper()}")

    async def method(self, argument):
        said = argument if name != "auth" else (argument or "").split(" ")[0]
        self.book.log.append([self.number, f"{name} {said or ''}".strip()])
        if not await self.misbehave(name, argument):
            await original(self, argument)

    # The base class looks for the syntax of each command.
    method.__dict__.update(original.__dict__)
    return method


for name in STEPS:
    setattr(Server, f"smtp_{name.upper()}", step(name))


async def answer(book, request):
    if "rule" in request:
        book.rules.append(request["rule"])
        return {}
    if "forget" in request:
        book.rules.clear()
        book.messages.clear()
        book.log.clear()
        return {}
    if "wait" in request:
        async with book.arrived:
            await book.arrived.wait_for(lambda: len(book.messages) >= request["wait"])
        return {"count": len(book.messages)}
    if "log" in request:
        return {"log": book.log, "connections": book.connections}
    return {"messages": book.messages}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--certificate")
    arguments.add_argument("--login")
    arguments.add_argument("--no-utf8", action="store_true")
    arguments.add_argument("--no-starttls", action="store_true")
    arguments.add_argument("--pause", type=int, default=0, help="milliseconds between a message and its reply")
    asyncio.run(serve(arguments.parse_args()))


async def serve(options):
    loop = asyncio.get_running_loop()
    # A dropped connection is what these tests are about.
    loop.set_exception_handler(lambda loop, context: None)
    logging.disable()
    warnings.simplefilter("ignore")
    book = Book()
    book.pause = options.pause / 1000
    login = tuple(options.login.split(":", 1)) if options.login else None

    def authenticate(server, session: Session, envelope: Envelope, mechanism, data):
        good = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == login
        return AuthResult(success=good, handled=False, message=None if good else "535 5.7.8 no")

    more = {
        "hostname": "sink.test",
        "ident": "greeting",
        "enable_SMTPUTF8": not options.no_utf8,
        "timeout": 300,
        "auth_require_tls": False,
    }
    if login:
        more |= {"authenticator": authenticate, "auth_required": True}
    else:
        more |= {"auth_exclude_mechanism": ["LOGIN", "PLAIN", "XOAUTH2"]}
    context = None
    if options.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.certificate)
    starttls = context if not options.no_starttls else None
    plain = await loop.create_server(
        lambda: Server(book, login, tls_context=starttls, loop=loop, **more), "127.0.0.1", 0
    )
    ports = {"port": plain.sockets[0].getsockname()[1]}
    if context:
        implicit = await loop.create_server(lambda: Server(book, login, loop=loop, **more), "127.0.0.1", 0, ssl=context)
        ports["implicit"] = implicit.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await answer(book, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
