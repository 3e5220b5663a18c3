"""An address of a picture: what a signature in it adds, and when it expires.

Hides which parameters belong to which signing scheme. What always holds: parameters are dropped
only if the whole scheme is there, in the form its documentation gives; whatever else is in an
address stays, byte for byte. Not promised: that every scheme is known. `images.identity` in a
manifest says what a picture is if its address does not.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import unquote

import msgspec

_End = Callable[[Mapping[str, str]], float | datetime | None]
"""Returns when a signature ends, by the parameters of its address: seconds of Unix time, or UTC."""

_USER = re.compile(r"^([^/?#]*//)[^/?#\s]*@")
_HOST = re.compile(r"https?://(?:[^/?#@]*@)?([^/?#:]+)", re.IGNORECASE)
_NUMBER = r"\d{9,11}"
_HEX = r"[0-9a-f]+"


class _Scheme(msgspec.Struct, frozen=True):
    """One way of signing an address.

    `needs` maps each required parameter to a pattern of its value ("" is any). `drops` is a pattern
    of further parameters that belong to it, `host` and `path` are patterns of where it is used,
    and `end` returns when a signature ends.
    """

    needs: Mapping[str, str]
    drops: str = ""
    host: str = ""
    path: str = ""
    end: _End = lambda _: None

    def drops_name(self, name: str) -> bool:
        """Tell whether a parameter belongs to the signature."""
        return name in self.needs or bool(self.drops and re.fullmatch(self.drops, name))


def _seconds(name: str, base: int = 10) -> _End:
    return lambda values: float(int(values[name], base)) if name in values else None


def _iso(name: str) -> _End:
    def end(values: Mapping[str, str]) -> datetime | None:
        if name not in values:
            return None
        found = datetime.fromisoformat(values[name])
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    return end


def _dated(prefix: str) -> _End:
    """Return the end of a signature that has a date and a number of seconds."""

    def end(values: Mapping[str, str]) -> datetime | None:
        if f"{prefix}-expires" not in values:
            return None
        start = datetime.strptime(values[f"{prefix}-date"], "%Y%m%dT%H%M%S%z")
        return start + timedelta(seconds=int(values[f"{prefix}-expires"]))

    return end


def _in_value(name: str, pattern: str) -> _End:
    def end(values: Mapping[str, str]) -> float | None:
        found = re.search(pattern, values[name])
        return None if found is None else float(found.group(1))

    return end


def _of_json_web_token(name: str) -> _End:
    def end(values: Mapping[str, str]) -> float | None:
        claims = values[name].split(".")[1]
        decoded = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        return msgspec.json.decode(decoded, type=dict[str, object]).get("exp")  # type: ignore[return-value]  # a number, or else no end is found

    return end


def _v4(prefix: str) -> _Scheme:
    needs = {f"{prefix}-date": "", f"{prefix}-signature": ""}
    # `x-oss-process` and its like change the picture.
    return _Scheme(needs, rf"{prefix}-(?!process).*", end=_dated(prefix))


_SCHEMES = (
    # AWS Signature Version 4, and all stores that speak it:
    # docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    _v4("x-amz"),
    # cloud.google.com/storage/docs/authentication/signatures
    _v4("x-goog"),
    # alibabacloud.com/help/en/oss/developer-reference/add-signatures-to-urls
    _v4("x-oss"),
    # docs.byteplus.com/en/docs/tos/docs-signature-methods
    _v4("x-tos"),
    # Signature Version 2 of AWS, Google, Alibaba and Huawei, the same but for one name:
    # docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAuthentication.html
    # cloud.google.com/storage/docs/access-control/signed-urls-v2
    # support.huaweicloud.com/intl/en-us/api-obs/obs_04_0011.html
    *(
        _Scheme(
            {name: "", "expires": r"\d+", "signature": ""},
            "x-(?:amz|obs)-security-token|security-token",
            end=_seconds("expires"),
        )
        for name in ("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "accesskeyid")
    ),
    # docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-signed-urls.html
    _Scheme(
        {"key-pair-id": "", "signature": "", "expires": r"\d+"}, "policy", end=_seconds("expires")
    ),
    _Scheme({"key-pair-id": "", "signature": "", "policy": ""}),
    # learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas (and account, user
    # delegation SAS); `si` and `sip` are left in place, as they were by earlier releases.
    *(
        _Scheme(
            {"sv": r"\d{4}.*", "sig": "", **more},
            "s[ept]|sk|spr|ss|srt|skoid|skid|sktid|skt|ske|sks|skv",
            end=_iso("se"),
        )
        for more in (
            {"sr": "b|bv|bs|c|d|f|s", "se": "", "sp": "[a-z]+"},
            {"sr": "b|bv|bs|c|d|f|s", "si": ""},
            {"ss": "[bqtf]+", "srt": "[sco]+", "se": "", "sp": "[a-z]+"},
        )
    ),
    # github.com/useapi/discord-cdn-proxy: ex and is are Unix times in hexadecimal figures
    _Scheme(
        {"ex": _HEX, "is": _HEX, "hm": _HEX},
        host=r".*\.discordapp\.(?:com|net)",
        end=_seconds("ex", 16),
    ),
    # A JSON web token: supabase.com/docs/guides/storage/serving/downloads
    _Scheme(
        {"token": r"[\w-]+\.[\w-]+\.[\w-]+"},
        path="/storage/v1/(?:object|render/image)/sign/.*",
        end=_of_json_web_token("token"),
    ),
    # firebase.google.com/docs/storage/web/download-files: a token that can be given anew
    _Scheme({"token": "[0-9a-f-]{36}"}, host=r"firebasestorage\.googleapis\.com"),
    # tencentcloud.com/document/product/436/7778
    _Scheme(
        {"q-sign-algorithm": "", "q-ak": "", "q-sign-time": r"\d+;\d+", "q-signature": ""},
        "q-key-time|q-header-list|q-url-param-list|x-cos-security-token",
        end=_in_value("q-sign-time", r";(\d{9,})"),
    ),
    # docs.bunny.net/cdn/security/token-authentication/advanced; KeyCDN and others are alike:
    # keycdn.com/support/secure-token
    *(
        _Scheme(
            {"token": "", name: _NUMBER},
            "token_(?:path|countries|countries_blocked|ignore_params|ver)",
            end=_seconds(name),
        )
        for name in ("expires", "expire")
    ),
    # developer.qiniu.com/kodo/1202/download-token
    _Scheme({"e": _NUMBER, "token": "[^:]+:.+"}, end=_seconds("e")),
    # alibabacloud.com/help/en/cdn/user-guide/type-a-signing
    _Scheme({"auth_key": r"\d{10}-[^-]*-[^-]*-[0-9a-f]{32}"}),
    # techdocs.akamai.com/adaptive-media-delivery/docs/generate-a-token-and-apply-it
    *(
        _Scheme({name: r".*exp=\d+.*hmac=[0-9a-f]+.*"}, end=_in_value(name, r"(?:^|~)exp=(\d{9,})"))
        for name in ("hdnts", "hdnea", "hdntl", "__token__", "token")
    ),
    # docs.imgix.com/getting-started/setup/securing-assets: MD5 of path and parameters
    _Scheme({"s": "[0-9a-f]{32}", "expires": _NUMBER}, end=_seconds("expires")),
    _Scheme({"s": "[0-9a-f]{32}"}, host=r".*\.imgix\.net"),
    # developers.cloudflare.com/images/manage-images/serve-images/serve-private-images,
    # bytescale.com/docs/secure-urls/signed-urls
    _Scheme({"exp": _NUMBER, "sig": ""}, end=_seconds("exp")),
    # laravel.com/docs/urls#signed-urls
    _Scheme({"expires": r"\d+", "signature": ""}, end=_seconds("expires")),
    # Pictures of Facebook and Instagram: oe is the end, in hexadecimal figures
    _Scheme(
        {"oh": "", "oe": _HEX},
        "_nc_(?:gid|ohc|oc)",
        host=r".*\.(?:fbcdn\.net|cdninstagram\.com)",
        end=_seconds("oe", 16),
    ),
)

# By the last parameter that each needs, so that most addresses are compared with no scheme.
_BY_PARAMETER: dict[str, list[_Scheme]] = {}
for _scheme in _SCHEMES:
    _BY_PARAMETER.setdefault(list(_scheme.needs)[-1], []).append(_scheme)

# Bunny's signatures may be a folder of the path, which is how films are served.
_BUNNY_FOLDER = re.compile(r"/bcdn_token=[^/?#]*&expires=(\d+)[^/?#]*(?=/)")
# github.com/simonw/airtable-export/issues/27: a time in ms, and behind it nothing that lasts.
_AIRTABLE = re.compile(
    r"https://v\d+\.airtableusercontent\.com/v\d+/\w+/\d+/\d+/(\d{13})/", re.IGNORECASE
)
# A name that is written in percent codes may be any.
_MAY_BE_SIGNED = re.compile(
    rf"@|/bcdn_token=|[?&](?:(?:{'|'.join(map(re.escape, _BY_PARAMETER))})(?=[=&#]|$)|[^=&#]*%)",
    re.IGNORECASE,
)


def may_be_signed(url: str) -> bool:
    """Tell quickly whether an address may hold a user or a signature; most hold neither."""
    may_be = "?" in url or "@" in url or "/bcdn_token=" in url
    return may_be and _MAY_BE_SIGNED.search(url) is not None


@lru_cache(maxsize=1024)
def unsigned_url(url: str) -> str:
    """Return the URL without user and signature: the same however often it is signed anew."""
    if not may_be_signed(url):
        return url
    # Taken apart by hand: no text whatever is an error, and what stays does so byte for byte.
    rest, hash_mark, fragment = url.partition("#")
    address, question_mark, query = rest.partition("?")
    pairs = query.split("&")
    names = [unquote(pair.partition("=")[0]).lower() for pair in pairs]
    schemes = _schemes(address, dict(zip(names, pairs, strict=True)))
    kept = [
        pair
        for pair, name in zip(pairs, names, strict=True)
        if not any(one.drops_name(name) for one in schemes)
    ]
    query = question_mark + "&".join(kept) if kept else ""
    address = _BUNNY_FOLDER.sub("", _USER.sub(r"\1", address), count=1)
    return f"{address}{query}{hash_mark}{fragment}"


def expires_at(url: str) -> datetime | None:
    """Return when the URL's own signature ends; None if it does not tell."""
    if "?" not in url and "/bcdn_token=" not in url and _AIRTABLE.match(url) is None:
        return None  # nearly all addresses
    address, _, query = url.partition("#")[0].partition("?")
    in_path = _AIRTABLE.match(address) or _BUNNY_FOLDER.search(address)
    ends: list[datetime | None] = []
    if in_path is not None:
        ends.append(datetime.fromtimestamp(int(in_path.group(1)[:10]), UTC))
    if query:
        pairs = {unquote(one.partition("=")[0]).lower(): one for one in query.split("&")}
        values = {name: unquote(pair.partition("=")[2]) for name, pair in pairs.items()}
        ends += [_end(scheme, values) for scheme in _schemes(address, pairs)]
    return min((end for end in ends if end is not None), default=None)


def _schemes(address: str, pairs: Mapping[str, str]) -> list[_Scheme]:
    """Return the schemes by which an address with these parameters is signed."""
    return [
        scheme
        for name in pairs
        for scheme in _BY_PARAMETER.get(name, ())
        if scheme.needs.keys() <= pairs.keys() and _is_used(scheme, address, pairs)
    ]


def _is_used(scheme: _Scheme, address: str, pairs: Mapping[str, str]) -> bool:
    if scheme.host or scheme.path:
        host = _HOST.match(address)
        if host is None or not (
            (not scheme.host or re.fullmatch(scheme.host, host.group(1), re.IGNORECASE))
            and (not scheme.path or re.fullmatch(scheme.path, address[host.end() :]))
        ):
            return False
    return all(
        not form or re.fullmatch(form, unquote(pairs[name].partition("=")[2]), re.IGNORECASE)
        for name, form in scheme.needs.items()
    )


def _end(scheme: _Scheme, values: Mapping[str, str]) -> datetime | None:
    try:
        end = scheme.end(values)
        if isinstance(end, int | float):
            return datetime.fromtimestamp(end, UTC)
    except (ValueError, LookupError, OverflowError, OSError, msgspec.MsgspecError):
        return None
    return end if isinstance(end, datetime) else None
