"""Certificates for tests."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs openssl to make a certificate"
)


async def self_signed(folder: Path) -> tuple[Path, Path]:
    """Certificate and key for localhost, which nobody signed."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "1", "-subj", "/CN=localhost"]
    await asyncio.to_thread(lambda: subprocess.run(command, check=True, capture_output=True))
    return cert, key
