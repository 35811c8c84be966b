"""What the server of fake_hub.py answers: repositories, branches, commits, listings, uploads, downloads."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

PAGE = 100
"""Entries of a page of a listing."""
_NO_CARD = b"---\nlicense: unknown\n---\n"
LFS_SUFFIXES = (".parquet", ".arrow", ".safetensors", ".gguf", ".gz", ".zst", ".bin")


@dataclass
class Commit:
    """One commit: its files are all files of the repository then."""

    sha: str
    title: str
    parent: str | None
    files: dict[str, bytes]


@dataclass
class Repo:
    """A repository and its branches, each with its commits, the newest last."""

    private: bool = False
    gated: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    @property
    def commits(self) -> list[Commit]:
        return self.branches["main"]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1].files

    def commit(self, branch: str, title: str, files: dict[str, bytes]) -> Commit:
        commits = self.branches.setdefault(branch, [])
        parent = commits[-1].sha if commits else None
        raw = json.dumps([branch, title, parent, len(commits), sorted(files)]).encode()
        raw += b"".join(files[name] for name in sorted(files))
        commit = Commit(hashlib.sha1(raw).hexdigest(), title, parent, files)
        commits.append(commit)
        return commit

    def at(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        found = [c for commits in self.branches.values() for c in commits if c.sha == revision]
        return found[0] if found else None


@dataclass
class Answer:
    """What the server sends back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def _json(value: object, status: int = 200, **headers: str) -> Answer:
    return Answer(
        status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers}
    )


def error(status: int, message: str, code: str | None = None) -> Answer:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return _json({"error": message}, status, **headers)


@dataclass
class Api:
    """One request."""

    hub: Any
    method: str
    raw: str
    token: str | None
    body: bytes
    headers: Any

    def answer(self) -> Answer:
        self.path = urlsplit(self.raw).path
        self.query = parse_qs(urlsplit(self.raw).query)
        if self.token is not None and self.token not in self.hub.tokens:
            return error(401, "Invalid credentials in Authorization header")
        for method, pattern, name in _ROUTES:
            match = re.fullmatch(pattern, self.path)
            if match and self.method in method.split():
                groups = {k: unquote(v) for k, v in match.groupdict(default="").items()}
                return getattr(self, name)(**groups)
        return error(404, "no such route")

    def _repo(self, kind: str, repo_id: str, *, write: bool = False) -> Repo | Answer:
        repo = self.hub.repos.get((kind or "models", repo_id))
        if repo is None or (repo.private and self.token is None):
            return error(404 if self.token else 401, "Repository not found", "RepoNotFound")
        if write and self.token is None:
            return error(401, "Invalid username or password.")
        if write and self.hub.tokens[self.token or ""] != "write":
            return error(403, "You don't have the rights to write to this repository")
        return repo

    def _commit(self, kind: str, repo_id: str, revision: str) -> tuple[Repo, Commit] | Answer:
        repo = self._repo(kind, repo_id)
        if isinstance(repo, Answer):
            return repo
        commit = repo.at(revision or "main")
        if commit is None:
            return error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repo, commit

    def whoami(self) -> Answer:
        if self.token is None:
            return error(401, "Invalid username or password.")
        role = self.hub.tokens[self.token]
        auth = {"accessToken": {"displayName": "test", "role": role}}
        return _json({"type": "user", "name": "me", "orgs": [], "auth": auth})

    def create(self) -> Answer:
        asked = json.loads(self.body)
        kind = f"{asked.get('type', 'model')}s"
        repo_id = f"{asked.get('organization') or 'me'}/{asked['name']}"
        prefix = "" if kind == "models" else f"{kind}/"
        found = {"url": f"{self.hub.url}/{prefix}{repo_id}", "name": repo_id}
        if self.token is None:
            return error(401, "Invalid username or password.")
        if self.hub.tokens[self.token] != "write":
            return error(403, "You don't have the rights to create a repository here")
        with self.hub.lock:
            if (kind, repo_id) in self.hub.repos:
                return _json({"error": "You already created this repo", **found}, 409)
            repo = Repo(private=asked.get("visibility") == "private" or bool(asked.get("private")))
            repo.commit("main", "initial commit", {".gitattributes": b"*.parquet filter=lfs\n"})
            self.hub.repos[kind, repo_id] = repo
        return _json(found)

    def validate(self) -> Answer:
        errors = [{"message": text} for text in self._refusals(json.loads(self.body)["content"])]
        return _json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _refusals(self, card: str) -> list[str]:
        """Return what the Hub does not take of a card, in the words of its validator."""
        front = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
        try:
            told = yaml.safe_load(front[1]) if front else None
        except yaml.YAMLError as fault:
            return [f"YAML Metadata Error: {fault}"]
        if not isinstance(told, dict):
            return ["no metadata"]
        licence, languages = told.get("license", "unknown"), told.get("language", [])
        found: list[str] = []
        if licence not in self.hub.licences:
            found.append(f'"license" must be one of [{", ".join(sorted(self.hub.licences))}]')
        for number, language in enumerate([languages] if isinstance(languages, str) else languages):
            if not re.fullmatch(r"[a-z]{2,3}(-[a-z]+)?|multilingual", language):
                found.append(f'"language[{number}]" must be an ISO 639 code')
        return found

    def info(self, kind: str, repo: str, revision: str) -> Answer:
        found = self._commit(kind, repo, revision)
        if isinstance(found, Answer):
            return found
        known, commit = found
        return _json(
            {
                "id": repo,
                "sha": commit.sha,
                "private": known.private,
                "gated": "auto" if known.gated else False,
                "siblings": [{"rfilename": name} for name in sorted(commit.files)],
            }
        )

    def tree(self, kind: str, repo: str, revision: str) -> Answer:
        found = self._commit(kind, repo, revision)
        if isinstance(found, Answer):
            return found
        entries = [_entry(name, raw) for name, raw in sorted(found[1].files.items())]
        folders = {str(p) for name in found[1].files for p in list(Path(name).parents)[:-1]}
        entries += [
            {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            for folder in sorted(folders)
        ]
        start = int(self.query.get("cursor", ["0"])[0])
        answer = _json(entries[start : start + PAGE])
        if start + PAGE < len(entries):
            query = f"recursive=True&expand=False&cursor={start + PAGE}"
            answer.headers["Link"] = f'<{self.hub.url}{self.path}?{query}>; rel="next"'
        return answer

    def preupload(self, kind: str, repo: str, revision: str) -> Answer:
        known = self._repo(kind, repo, write=True)
        if isinstance(known, Answer):
            return known
        commit = known.at(revision)
        if commit is None:
            return error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            oid = None
            if file["path"] in commit.files:
                oid = _oid(file["path"], commit.files[file["path"]])
            files.append(
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        return _json({"files": files})

    def commit(self, kind: str, repo: str, revision: str) -> Answer:
        if self.hub.before_commit is not None:
            self.hub.before_commit()
        known = self._repo(kind, repo, write=True)
        if isinstance(known, Answer):
            return known
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        with self.hub.lock:
            head = known.at(revision)
            if head is None:
                return error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            if header.get("parentCommit") not in (None, head.sha):
                return error(412, "A commit has happened since. Please refresh and try again.")
            files = self._changed(head.files, lines[1:])
            if isinstance(files, Answer):
                return files
            made = known.commit(revision, header["summary"], files)
        url = f"{self.hub.url}/{kind}/{repo}/commit/{made.sha}"
        return _json({"commitUrl": url, "commitOid": made.sha, "success": True})

    def _changed(
        self, there: dict[str, bytes], lines: list[dict[str, Any]]
    ) -> dict[str, bytes] | Answer:
        """Return the files after what a commit adds and takes away, or what is refused of it."""
        files = dict(there)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return error(400, "The LFS object was not uploaded")
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                return error(400, f"unknown key {line['key']}")
        if refused := self._refusals(files.get("README.md", _NO_CARD).decode()):
            return error(400, f"Invalid metadata in README.md: {refused[0]}")
        return files

    def branch(self, kind: str, repo: str, revision: str) -> Answer:
        known = self._repo(kind, repo, write=True)
        if isinstance(known, Answer):
            return known
        if revision in known.branches:
            return error(409, "Reference already exists")
        known.branches[revision] = [known.commits[-1]]
        return _json({})

    def batch(self, kind: str, repo: str) -> Answer:
        known = self._repo(kind.strip("/"), repo, write=True)
        if isinstance(known, Answer):
            return known
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            item: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                item["actions"] = {"upload": self._upload(wanted)}
            objects.append(item)
        return _json({"transfer": "basic", "objects": objects})

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.hub.url}/lfs/{wanted['oid']}"
        size = self.hub.part_bytes
        if size is None:
            return {"href": href}
        count = -(-wanted["size"] // size)
        urls = {str(n): f"{href}/{n}" for n in range(1, count + 1)}
        return {"href": href, "header": {"chunk_size": str(size), **urls}}

    def upload(self, oid: str, part: str) -> Answer:
        if self.method == "POST":
            numbers = [p["partNumber"] for p in json.loads(self.body)["parts"]]
            return self._keep(oid, b"".join(self.hub.parts[oid][n] for n in numbers))
        if part:
            self.hub.parts.setdefault(oid, {})[int(part)] = self.body
            return Answer(headers={"ETag": f'"{part}"'})
        return self._keep(oid, self.body)

    def _keep(self, oid: str, raw: bytes) -> Answer:
        if hashlib.sha256(raw).hexdigest() != oid:
            return error(400, "The content is not what its name says")
        self.hub.objects[oid] = raw
        return _json({})

    def resolve(self, kind: str, repo: str, revision: str, file: str) -> Answer:
        found = self._commit(kind.strip("/"), repo, revision)
        if isinstance(found, Answer):
            return found
        known, commit = found
        if known.gated and self.token not in self.hub.accepted:
            return error(401 if self.token is None else 403, "Access is restricted", "GatedRepo")
        if file not in commit.files:
            return error(404, "Entry not found", "EntryNotFound")
        raw = commit.files[file]
        headers = {"ETag": f'"{_oid(file, raw)}"', "X-Repo-Commit": commit.sha}
        if self.method == "HEAD":
            return Answer(200, raw, headers)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted is None:
            return Answer(200, raw, headers)
        start = int(wanted[1])
        headers["Content-Range"] = f"bytes {start}-{len(raw) - 1}/{len(raw)}"
        return Answer(206, raw[start:], headers)


_REPO = r"(?P<repo>[^/]+/[^/]+|[^/]+)"
_KIND = r"(?P<kind>datasets|models)"
_PLAIN = r"(?P<kind>datasets/|)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", rf"/api/{_KIND}/{_REPO}/revision/{_REVISION}", "info"),
    ("GET", rf"/api/{_KIND}/{_REPO}/tree/{_REVISION}", "tree"),
    ("POST", rf"/api/{_KIND}/{_REPO}/preupload/{_REVISION}", "preupload"),
    ("POST", rf"/api/{_KIND}/{_REPO}/commit/{_REVISION}", "commit"),
    ("POST", rf"/api/{_KIND}/{_REPO}/branch/{_REVISION}", "branch"),
    ("GET", rf"/api/{_KIND}/{_REPO}(?P<revision>)", "info"),
    ("POST", rf"/{_PLAIN}{_REPO}\.git/info/lfs/objects/batch", "batch"),
    ("PUT POST", r"/lfs/(?P<oid>[0-9a-f]{64})(?:/(?P<part>\d+))?", "upload"),
    ("GET HEAD", rf"/{_PLAIN}{_REPO}/resolve/{_REVISION}/(?P<file>.+)", "resolve"),
)


def _oid(name: str, raw: bytes) -> str:
    if name.endswith(LFS_SUFFIXES):
        return hashlib.sha256(raw).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()


def _entry(name: str, raw: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(raw), "oid": "0" * 40}
    if name.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": _oid(name, raw), "size": len(raw), "pointerSize": 130}
    return entry
