"""SCRAM from the server's side."""

import base64
import hashlib
import hmac


class Server:
    """SCRAM from the server's side, as RFC 5802 describes it: knows stored and server key, not the password."""

    def __init__(self, name: str, password: str, *, salt: bytes = b"salt" * 4, iterations: int = 4096) -> None:
        self.hash = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}[name]
        salted = hashlib.pbkdf2_hmac(self.hash, password.encode(), salt, iterations)
        self.stored_key = hashlib.new(self.hash, hmac.digest(salted, b"Client Key", self.hash)).digest()
        self.server_key = hmac.digest(salted, b"Server Key", self.hash)
        self.salt, self.iterations = salt, iterations
        self.username = ""

    def first(self, message: bytes) -> bytes:
        assert message.startswith(b"n,,")
        self.client_first = message[3:]
        user, nonce = message[3:].decode().split(",")
        self.username = user.removeprefix("n=").replace("=2C", ",").replace("=3D", "=")
        self.nonce = nonce.removeprefix("r=") + "-theirs"
        salt = base64.b64encode(self.salt).decode()
        self.server_first = f"r={self.nonce},s={salt},i={self.iterations}".encode()
        return self.server_first

    def final(self, message: bytes) -> bytes | None:
        """The server's proof; None if the client's is wrong."""
        unproved, _, proof = message.rpartition(b",p=")
        assert unproved == b"c=biws,r=" + self.nonce.encode()
        transcript = b",".join((self.client_first, self.server_first, unproved))
        signature = hmac.digest(self.stored_key, transcript, self.hash)
        key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
        if hashlib.new(self.hash, key).digest() != self.stored_key:
            return None
        return b"v=" + base64.b64encode(hmac.digest(self.server_key, transcript, self.hash))
