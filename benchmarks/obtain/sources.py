"""Where the published archives lie and what they must be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from benchmarks.errors import DataError


@dataclass(frozen=True)
class Archive:
    """A published file; `checksum` is `md5:`, `sha1:` or `sha256:` and the digest in hexadecimal."""

    name: str
    url: str
    checksum: str


VOC = Archive(
    name="VOCtrainval_11-May-2012.tar",
    url="https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
)
"""URL and checksum as in torchvision.datasets.VOCSegmentation."""

SBD = Archive(
    name="benchmark.tgz",
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
)
"""URL and checksum as in torchvision.datasets.SBDataset."""

ADE = Archive(
    name="ADEChallengeData2016.zip",
    url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    checksum="sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
)
"""URL and checksum as in scripts/datasets/ade20k.py of github.com/dmlc/gluon-cv."""

PUBLISHED: Mapping[str, Archive] = {archive.name: archive for archive in (VOC, SBD, ADE)}

_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}")


def with_mirrors(mirrors: Mapping[Any, object], where: str) -> dict[str, Archive]:
    """Return the archives by name, with the mirrors' `url` and `checksum` over the published ones.

    `mirrors` has a mapping of `url`, `checksum` or both per archive name; raise `DataError`, naming `where` they
    stand, for anything else.
    """
    archives = dict(PUBLISHED)
    for name, over in mirrors.items():
        if not isinstance(name, str) or name not in archives:
            raise DataError(f"{where}: unknown archive {name!r}{_nearest(name)} (known: {', '.join(archives)})")
        archives[name] = _mirrored(archives[name], over, f"{where}: {name}")
    return archives


def _nearest(name: object) -> str:
    near = difflib.get_close_matches(str(name), PUBLISHED, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _mirrored(archive: Archive, over: object, where: str) -> Archive:
    if not isinstance(over, dict) or not over or not set(over) <= {"url", "checksum"}:
        raise DataError(f"{where}: {over!r} stands there; allowed are url and checksum")
    url, checksum = over.get("url", archive.url), str(over.get("checksum", archive.checksum)).lower()
    if not _is_url(url):
        raise DataError(f"{where}: url {url!r}; it begins with http:// or https:// and a host")
    if not _CHECKSUM.fullmatch(checksum):
        raise DataError(f"{where}: checksum {checksum!r}; it is md5:, sha1: or sha256: and the digest in hexadecimal")
    return replace(archive, url=url, checksum=checksum)


def _is_url(url: object) -> bool:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return False
