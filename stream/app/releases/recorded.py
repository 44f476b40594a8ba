"""Read and write releases on their topic, for the commands."""

from tagbus.stream.app import console
from tagbus.stream.app.places import folders
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.release import ReleaseRecord, Served, encode_release
from tagbus.stream.encoder.release import load_recorded, load_release
from tagbus.stream.errors import Poison, ReleaseMismatch, UserError
from tagbus.stream.index.releases import Releases
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import read_all
from tagbus.stream.kafka.writer import TopicWriter


def read_releases(settings: Settings) -> Releases:
    """The current state of the topic. Raises UserError if it is missing, DependencyDown if no broker answers."""
    releases = Releases()
    for message in read_all(settings.kafka, settings.topics.releases):
        try:
            releases = releases.after(record_of(message))
        except Poison as error:
            console.say(f"skipped {message.topic()}:{message.partition()}:{message.offset()}: {error}")
    return releases


def in_force(settings: Settings, releases: Releases) -> str:
    """The name of the release that workers should tag with."""
    return releases.active.release if releases.active else folders.base_release(settings).name


def announce(settings: Settings, record: ReleaseRecord) -> None:
    """Write the release to the topic, unless it is already on it."""
    name = record.release.name
    found = read_releases(settings).records.get(name)
    if found != record:
        publish(settings, encode_release(record))
        console.say(f"release {name} is on topic {settings.topics.releases}: workers load it beside the one in force")


def record_for(settings: Settings, name: str, served: Served | None) -> ReleaseRecord:
    """The record of a release, made from its folder.

    Raises UserError if the topic has a different one of that name: a release is immutable.
    """
    folder = folders.release_folder(settings, name)
    found = read_releases(settings).records.get(name)
    one = load_release(folder) if found is None else load_recorded(folder, found.release)
    if one.name != name:
        raise ReleaseMismatch(f"{folder} holds release {one.name}, expected {name}")
    if found is not None:
        if served is not None and served != found.triton:
            raise UserError(
                f"release {name} was recorded with another --triton; a release is immutable, name a new one"
            )
        return found
    if served is None and settings.encoder.kind == "triton":
        served = Served(model=settings.encoder.model, version=settings.encoder.version)
    return ReleaseRecord(release=one, triton=served)


def on_topic(releases: Releases, name: str) -> ReleaseRecord:
    """The record of that release. Raises UserError if there is none."""
    if name not in releases.records:
        known = ", ".join(sorted(releases.records)) or "none yet"
        raise UserError(f"release {name} is not on the topic (it has: {known}); `tagbus release build {name}` adds it")
    return releases.records[name]


def own(settings: Settings, name: str, record: ReleaseRecord | None) -> Settings:
    """The settings of one release, its files verified. Raises ReleaseMismatch that names the differing file."""
    if record is None:
        if (base := folders.base_release(settings).name) != name:
            raise ReleaseMismatch(f"release {name} is neither on topic {settings.topics.releases} nor {base} itself")
        return settings
    folder = folders.release_folder(settings, name)
    load_recorded(folder, record.release)
    return folders.settings_of(settings, folder, record.triton)


def publish(settings: Settings, *records: Record) -> None:
    """Write records. Raises UserError or DependencyDown."""
    with TopicWriter(settings.kafka, settings.topics.releases) as writer:
        for record in records:
            writer.send(record)
