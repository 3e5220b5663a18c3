"""The table that a shop imports, and the table that undoes the import.

Always holds: only files that were delivered are in it; positions count from 1 within a product;
addresses are those below the channel's `base_url`. The second table has the same form, and the
addresses that a product had before.

Sources, read in November 2026: Shopify Help, "Using CSV files to import and export products" (an
update needs Handle and Title; one row a picture); WooCommerce, "Product CSV Import Schema" (one row
a product; its pictures are separated by commas).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import msgspec

KINDS = ("shopify", "woocommerce", "csv")


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a product, with its public address."""

    url: str
    alt: str = ""
    file: str = ""
    sha256: str = ""


class Product(msgspec.Struct, kw_only=True):
    """A product of the shop: its pictures now, and the addresses that they replace."""

    title: str = ""
    pictures: list[Listed] = []
    replaced: list[str] = []


def way_back(kind: str, products: Mapping[str, Product]) -> bytes:
    """Return the table that puts the former addresses back."""
    former = {
        handle: Product(title=one.title, pictures=[Listed(url=url) for url in one.replaced])
        for handle, one in products.items()
    }
    return import_table(kind, former)


def import_table(kind: str, products: Mapping[str, Product]) -> bytes:
    """Return the table that puts the delivered pictures into the shop."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    match kind:
        case "shopify":
            writer.writerow(("Handle", "Title", "Image Src", "Image Position", "Image Alt Text"))
            for handle, product in products.items():
                for position, one in enumerate(product.pictures, start=1):
                    name = product.title if position == 1 else ""
                    writer.writerow((handle, name, one.url, position, one.alt))
        case "woocommerce":
            writer.writerow(("SKU", "Images"))
            for handle, product in products.items():
                # A comma separates addresses, so one inside an address is written as %2C.
                urls = (one.url.replace(",", "%2C") for one in product.pictures)
                writer.writerow((handle, ", ".join(urls)))
        case _:
            writer.writerow(("handle", "title", "url", "position", "alt", "file", "sha256"))
            for handle, product in products.items():
                for position, one in enumerate(product.pictures, start=1):
                    shown = (one.url, position, one.alt, one.file, one.sha256)
                    writer.writerow((handle, product.title, *shown))
    return text.getvalue().encode()
