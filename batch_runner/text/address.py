"""An address of a picture: what a signature in it adds, and when it expires.

Hides which parameters belong to which signing scheme. What always holds: parameters are dropped
only if the whole scheme is there, in the form its documentation gives; whatever else is in an
address stays, byte for byte. Not promised: that every scheme is known. `images.identity` in a
manifest says what a picture is if its address does not, and a run stops before it buys jobs again
only because addresses changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import unquote

import msgspec

_USER = re.compile(r"^([^/?#]*//)[^/?#\s]*@")
_HEX = r"[0-9a-f]+"


class _Scheme(msgspec.Struct, frozen=True):
    """One way of signing an address.

    `needs` maps each required parameter to a pattern of its value ("" is any), `drops` is a pattern
    of further parameters that belong to it, `ends` the one that says when a signature ends, and
    `used_at` a pattern of host and path if it is used there alone.
    """

    needs: Mapping[str, str]
    drops: str = ""
    ends: str = ""
    used_at: str = ""

    def is_in(self, address: str, values: Mapping[str, str]) -> bool:
        """Tell whether an address with these parameters is signed so."""
        return (
            self.needs.keys() <= values.keys()
            and all(_fits(form, values[name]) for name, form in self.needs.items())
            and _fits(self.used_at, _USER.sub(r"\1", address).partition("//")[2])
        )

    def drops_name(self, name: str) -> bool:
        """Tell whether a parameter belongs to the signature."""
        return name in self.needs or bool(self.drops and re.fullmatch(self.drops, name))


def _fits(form: str, text: str) -> bool:
    return not form or re.fullmatch(form, text, re.IGNORECASE) is not None


_SCHEMES = (
    # Signature Version 4, the same at several stores but for the prefix; `x-oss-process` and its
    # like change the picture:
    # docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    # cloud.google.com/storage/docs/authentication/signatures
    # alibabacloud.com/help/en/oss/developer-reference/add-signatures-to-urls
    # docs.byteplus.com/en/docs/tos/docs-signature-methods
    *(
        _Scheme(
            {f"x-{store}-date": "", f"x-{store}-signature": ""},
            rf"x-{store}-(?!process).*",
            ends=f"x-{store}-expires",
        )
        for store in ("amz", "goog", "oss", "tos")
    ),
    # Signature Version 2 of AWS, Google, Alibaba and Huawei, the same but for one name:
    # docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAuthentication.html
    # cloud.google.com/storage/docs/access-control/signed-urls-v2
    # support.huaweicloud.com/intl/en-us/api-obs/obs_04_0011.html
    *(
        _Scheme(
            {name: "", "expires": r"\d+", "signature": ""},
            "x-(?:amz|obs)-security-token|security-token",
            ends="expires",
        )
        for name in ("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "accesskeyid")
    ),
    # docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-signed-urls.html
    _Scheme({"key-pair-id": "", "signature": "", "expires": r"\d+"}, "policy", ends="expires"),
    _Scheme({"key-pair-id": "", "signature": "", "policy": ""}),
    # learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas (and account, user
    # delegation SAS); `si` and `sip` are left in place, as they were by earlier releases.
    *(
        _Scheme(
            {"sv": r"\d{4}.*", **more, "sig": ""},
            "s[ept]|sk|spr|ss|srt|skoid|skid|sktid|skt|ske|sks|skv",
            ends="se",
        )
        for more in (
            {"sr": "b|bv|bs|c|d|f|s", "se": "", "sp": "[a-z]+"},
            {"sr": "b|bv|bs|c|d|f|s", "si": ""},
            {"ss": "[bqtf]+", "srt": "[sco]+", "se": "", "sp": "[a-z]+"},
        )
    ),
    # github.com/useapi/discord-cdn-proxy: ex and is are Unix times in hexadecimal figures
    _Scheme(
        {"ex": _HEX, "is": _HEX, "hm": _HEX}, ends="ex", used_at=r"[^/]+\.discordapp\.(com|net)/.*"
    ),
    # A JSON web token: supabase.com/docs/guides/storage/serving/downloads
    _Scheme(
        {"token": r"[\w-]+\.[\w-]+\.[\w-]+"},
        used_at="[^/]+/storage/v1/(?:object|render/image)/sign/.*",
    ),
    # firebase.google.com/docs/storage/web/download-files: a token that can be given anew
    _Scheme({"token": "[0-9a-f-]{36}"}, used_at=r"firebasestorage\.googleapis\.com/.*"),
    # tencentcloud.com/document/product/436/7778
    _Scheme(
        {"q-sign-algorithm": "", "q-ak": "", "q-sign-time": r"\d+;\d+", "q-signature": ""},
        "q-key-time|q-header-list|q-url-param-list|x-cos-security-token",
    ),
    # docs.bunny.net/cdn/security/token-authentication/advanced
    _Scheme(
        {"token": "", "expires": r"\d{9,11}"},
        "token_(?:path|countries|countries_blocked|ignore_params|ver)",
        ends="expires",
    ),
    # laravel.com/docs/urls#signed-urls
    _Scheme({"expires": r"\d+", "signature": ""}, ends="expires"),
)

# By the last parameter that each needs; a name that is written in percent codes may be any.
_MAY_BE_SIGNED = re.compile(
    rf"@|[?&](?:(?:{'|'.join({list(one.needs)[-1] for one in _SCHEMES})})(?=[=&#]|$)|[^=&#]*%)",
    re.IGNORECASE,
)


def may_be_signed(url: str) -> bool:
    """Tell quickly whether an address may hold a user or a signature; most hold neither."""
    return ("?" in url or "@" in url) and _MAY_BE_SIGNED.search(url) is not None


@lru_cache(maxsize=1024)
def unsigned_url(url: str) -> str:
    """Return the URL without user and signature: the same however often it is signed anew."""
    if not may_be_signed(url):
        return url
    # Taken apart by hand: no text whatever is an error, and what stays does so byte for byte.
    rest, hash_mark, fragment = url.partition("#")
    address, question_mark, query = rest.partition("?")
    values = _values(query)
    schemes = [scheme for scheme in _SCHEMES if scheme.is_in(address, values)]
    kept = [
        pair
        for pair in query.split("&")
        if not any(scheme.drops_name(name) for scheme in schemes for name in _values(pair))
    ]
    query = question_mark + "&".join(kept) if kept else ""
    return _USER.sub(r"\1", address) + query + hash_mark + fragment


def expires_at(url: str) -> datetime | None:
    """Return when the URL's own signature ends; None if it does not tell."""
    if not may_be_signed(url):
        return None
    address, _, query = url.partition("#")[0].partition("?")
    values = _values(query)
    ends = [_end(scheme.ends, values) for scheme in _SCHEMES if scheme.is_in(address, values)]
    return min((end for end in ends if end is not None), default=None)


def _values(query: str) -> dict[str, str]:
    """Return the parameters of a query, their names in lower case."""
    pairs = (pair.partition("=") for pair in query.split("&"))
    return {unquote(name).lower(): unquote(value) for name, _, value in pairs}


def _end(name: str, values: Mapping[str, str]) -> datetime | None:
    try:
        text = values[name]
        if name.startswith("x-"):  # a number of seconds after a date
            date = values[name.replace("-expires", "-date")]
            return datetime.strptime(date, "%Y%m%dT%H%M%S%z") + timedelta(seconds=int(text))
        if name == "se":
            end = datetime.fromisoformat(text)
            return end if end.tzinfo else end.replace(tzinfo=UTC)
        return datetime.fromtimestamp(int(text, 16 if name == "ex" else 10), UTC)
    except (ValueError, LookupError, OverflowError, OSError):
        return None
