"""A database with the platform's tables, for the tests of this folder."""

from tests.helpers.platform import platform_template, platform_url

__all__ = ["platform_template", "platform_url"]
