"""``topolora label``: start MONAI Label's server with the package's app."""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topolora_monai.cli.common import add_command

if TYPE_CHECKING:
    from topolora_monai.label_app.options import LabelOptions

_APP = '"""Found by MONAI Label."""\n\nfrom topolora_monai.label_app.main import LabelApp\n\n__all__ = ["LabelApp"]\n'


def add_commands(commands: Any) -> None:
    """Add the subcommand to a parser."""
    label = add_command(commands, "label", _label, "annotate images with adapted networks: MONAI Label's server")
    label.add_argument("--studies", required=True, help="folder of images, or address of a DICOMweb server")
    several: dict[str, Any] = {"action": "append", "default": []}
    label.add_argument("--adapter", metavar="[NAME=]FILE", help="adapter file; may be repeated", **several)
    label.add_argument("--bundle", metavar="[NAME=]DIR", help="released bundle; may be repeated", **several)
    label.add_argument("--weights", help="base checkpoint of the adapters, path or name")
    label.add_argument("--workspace", type=Path, help="folder for adapter versions and logs, by default in the studies")
    label.add_argument("--host", default="127.0.0.1", help="address to listen on, by default this machine alone")
    label.add_argument("--port", type=int, default=8000)
    label.add_argument("--allow_host", help="further name that the server answers to", **several)
    label.add_argument("--cors", metavar="ORIGIN", help="site whose pages may use it", **several)
    label.add_argument("--auth", metavar="URL", help="OpenID Connect issuer; without it nobody has to sign in")
    label.add_argument("--client_id", default="monailabel-app", help="of this server with the issuer")
    label.add_argument("--anyone", action="store_true", help="let other machines in without signing in")
    label.add_argument("--overlap", type=float, default=0.25, help="of the tiles; less answers sooner")
    about = "of fundus photographs: nothing outside the lit disc"
    label.add_argument("--field_of_view", action="store_true", help=about)
    about = "DICOM SEG objects as label maps (Supplement 243), for viewers that read them"
    label.add_argument("--label_map", action="store_true", help=about)
    label.add_argument("--max_upload_mb", type=float, default=500, help="most that a request may carry")
    label.add_argument("--max_megapixels", type=float, default=300, help="largest image")
    label.add_argument("--ssl_certfile", help="certificate, to be reached by https")
    label.add_argument("--ssl_keyfile", help="its key")


def _label(options: argparse.Namespace) -> None:
    from topolora_monai.extras import import_extra  # noqa: PLC0415 - only here
    from topolora_monai.label_app.patches import check_version, set_defaults  # noqa: PLC0415

    check_version()
    _check_reach(options)
    settings = _settings(options)
    set_defaults()
    _check_models(settings)
    if not _is_address(options.studies):
        from topolora_monai.label_app.datastore import StudyFolder  # noqa: PLC0415 - needs MONAI Label

        StudyFolder(options.studies)
    app = _app_folder(settings.folder)
    if options.auth:
        os.environ["MONAI_LABEL_AUTH_ENABLE"] = "true"
        os.environ["MONAI_LABEL_AUTH_REALM_URI"] = options.auth
        os.environ["MONAI_LABEL_AUTH_CLIENT_ID"] = options.client_id
    arguments = ["start_server", "--app", str(app), "--studies", options.studies]
    arguments += ["--host", options.host, "--port", str(options.port)]
    arguments += ["--uvicorn_app", "topolora_monai.label_app.asgi:app"]
    for name, value in settings.to_conf().items():
        arguments += ["--conf", name, value]
    for name in ("ssl_certfile", "ssl_keyfile"):
        if getattr(options, name):
            arguments += [f"--{name}", getattr(options, name)]
    scheme = "https" if options.ssl_certfile else "http"
    print(f"starting on {scheme}://{options.host}:{options.port}/topolora/ (about 10 s; Ctrl-C ends it)", flush=True)
    server = import_extra("monailabel.main", "label", "topolora label").Main()
    server.action_start_server(server.args_parser().parse_args(arguments))


def _check_reach(options: argparse.Namespace) -> None:
    from topolora_monai.errors import ConfigError  # noqa: PLC0415

    if not (_is_loopback(options.host) or options.auth or options.anyone):
        raise ConfigError(
            "other machines could use the server without signing in",
            found=f"--host {options.host}",
            hint="give --auth the address of an OpenID Connect issuer, or --anyone if the network is trusted",
        )


def _check_models(settings: LabelOptions) -> None:
    """What would otherwise be said by a server that is half started, or by its first answer."""
    from topolora_monai.adapters import read_spec  # noqa: PLC0415
    from topolora_monai.errors import ConfigError  # noqa: PLC0415
    from topolora_monai.model.network import bundle_spec  # noqa: PLC0415
    from topolora_monai.weights import find_checkpoint  # noqa: PLC0415

    if not settings.adapters and not settings.bundles:
        raise ConfigError("nothing to segment with", hint="give --adapter FILE or --bundle DIR")
    if settings.weights:
        find_checkpoint(settings.weights)
    for path in settings.adapters.values():
        read_spec(path)
    for folder in settings.bundles.values():
        bundle_spec(folder)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _settings(options: argparse.Namespace) -> LabelOptions:
    from topolora_monai.label_app.options import LabelOptions  # noqa: PLC0415

    hosts = ["localhost", "127.0.0.1", "[::1]", options.host, *options.allow_host]
    everywhere = options.host in ("0.0.0.0", "::")
    return LabelOptions(
        workspace=str((options.workspace or _default_workspace(options.studies)).absolute()),
        adapters=_named(options.adapter, "--adapter"),
        bundles=_named(options.bundle, "--bundle"),
        weights=options.weights,
        overlap=options.overlap,
        field_of_view=options.field_of_view,
        label_map=options.label_map,
        max_upload_mb=options.max_upload_mb,
        max_megapixels=options.max_megapixels,
        allowed_hosts=[] if everywhere and not options.allow_host else hosts,
        cors_origins=options.cors,
    )


def _named(texts: list[str], option: str) -> dict[str, str]:
    """Paths by name, which is that of the file or folder where none is given."""
    from topolora_monai.errors import ConfigError  # noqa: PLC0415
    from topolora_monai.label_app.names import checked_name  # noqa: PLC0415

    named: dict[str, str] = {}
    for text in texts:
        name, given, place = text.partition("=")
        path = Path(place if given else text)
        name = checked_name(name if given else path.name.removesuffix(".safetensors"), "model")
        if not path.exists():
            raise ConfigError("file or folder not found", path=path, hint=f"check {option}")
        if name in named:
            raise ConfigError(f"two of {option} have one name", found=name, hint=f"use {option} NAME=PATH")
        named[name] = str(path.absolute())
    return named


def _is_address(studies: str) -> bool:
    return studies.startswith(("http://", "https://"))


def _default_workspace(studies: str) -> Path:
    from topolora_monai.io.places import user_cache  # noqa: PLC0415

    if _is_address(studies):
        return user_cache() / "label" / hashlib.sha256(studies.encode()).hexdigest()[:16]
    return Path(studies) / ".topolora" / "server"


def _app_folder(workspace: Path) -> Path:
    """The folder that MONAI Label takes for the app; it keeps logs and sessions there."""
    from topolora_monai.io.atomic import writing  # noqa: PLC0415

    folder = workspace / "app"
    with writing(folder, "to the workspace", "give another --workspace"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").write_text(_APP)
    return folder
