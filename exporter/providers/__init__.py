"""The upstream APIs as declarations: base URL, auth header, limits, cache times, endpoints, readers.

Pure. `spec` holds the shapes, `declare` reads a declaration (YAML text) into them, `paths` finds a value in a
JSON document, `results` are the typed answers, `failures` says what an error answer means. One file per
provider holds its declaration and what no declaration can say (Kraken's errors inside HTTP 200, three shapes
of CoinMarketCap's quotes). Nothing here knows HTTP, time or files: `exporter.client` does the calling.

Invariants: a reader returns a typed result or raises SchemaError with the path of the field; a classifier
never raises, whatever the body holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.providers import blockchain, coingecko, coinmarketcap, gemini, kraken, lunarcrush, openai
from exporter.providers.declare import read_declaration
from exporter.providers.spec import ProviderSpec

_MODULES = (coinmarketcap, coingecko, kraken, blockchain, lunarcrush, openai, gemini)


def builtin_providers() -> Mapping[str, ProviderSpec]:
    """The seven providers that need no declaration of the user's, by name. Parsed anew at each call."""
    specs = (
        read_declaration(module.NAME, module.DECLARATION, readers=module.READERS, classify=module.classify)
        for module in _MODULES
    )
    return {spec.name: spec for spec in specs}
