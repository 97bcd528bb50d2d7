"""POSIX ACLs on every engine: set, shown, inherited, masked by chmod, and obeyed (volume-format.md 2.11)."""

from __future__ import annotations

import struct

import pytest

from fscore.domain.acl import ABSENT, ACCESS, DEFAULT, Rule
from fscore.domain.attr import Kind
from fscore.domain.caller import Caller
from fscore.domain.errors import Denied, Exists, Invalid, NoAttribute, NotPermitted, Unsupported
from fscore.domain.ids import ROOT
from fscore.meta.engine import MetaEngine
from fscore.meta.engines.registry import open_engine
from fscore.meta.ops.change import AttrChange
from fscore.meta.service import MetaService
from tests.kit.engines import MakeMeta
from tests.kit.threads import together
from tests.kit.tree import ALICE, BOB, SUPER, mkdir, mkfile

CAROL = Caller(uid=3000, gid=3000, gids=(30,))
ACL = {"enable_acl": True}


@pytest.fixture
def acls(make_meta: MakeMeta) -> MetaService:
    """A client of a volume with ACLs."""
    return make_meta(setting=ACL)


def rule(meta: MetaService, ino: int, name: bytes = ACCESS) -> Rule:
    """The rule that programs see."""
    return Rule.from_xattr(meta.getxattr(ino, name))


def stored(meta: MetaService) -> dict[int, Rule]:
    """Every stored rule."""
    return {number: Rule.parse(one) for number, one in meta.engine.acls().items()}


NAMED = Rule(7, 5, 6, 0, ((BOB.uid, 6),), ((30, 4),))


def test_a_rule_is_set_shown_and_taken_away(acls: MetaService) -> None:
    ino = mkfile(acls, b"f", who=ALICE)
    with pytest.raises(NoAttribute):
        acls.getxattr(ino, ACCESS)
    before = acls.getattr(ino)
    acls.setxattr(ALICE, ino, ACCESS, NAMED.to_xattr())
    attr = acls.getattr(ino)
    assert attr.mode == 0o760, "the group bits are the mask"
    assert (attr.access_acl, attr.default_acl) == (1, 0)
    assert attr.ctime_ns >= before.ctime_ns
    assert rule(acls, ino) == NAMED
    assert stored(acls) == {1: NAMED}
    assert acls.listxattr(ino) == [ACCESS]
    acls.setxattr(ALICE, ino, b"user.a", b"1")
    assert acls.listxattr(ino) == [ACCESS, b"user.a"]
    acls.removexattr(ALICE, ino, ACCESS)
    assert acls.getattr(ino).access_acl == 0
    assert acls.getattr(ino).mode == 0o760, "as the kernel leaves it"
    with pytest.raises(NoAttribute):
        acls.removexattr(ALICE, ino, ACCESS)


def test_rules_are_shared_and_found_again(acls: MetaService, make_meta: MakeMeta) -> None:
    inos = [mkfile(acls, b"f%d" % number) for number in range(3)]
    for ino in inos:
        acls.setxattr(SUPER, ino, ACCESS, NAMED.to_xattr())
    other = make_meta()
    late = mkfile(other, b"late")
    other.setxattr(SUPER, late, ACCESS, NAMED.to_xattr())
    assert {other.getattr(ino, fresh=True).access_acl for ino in (*inos, late)} == {1}
    different = NAMED._replace(mask=4)
    other.setxattr(SUPER, late, ACCESS, different.to_xattr())
    assert stored(acls) == {1: NAMED, 2: different}
    assert acls.engine.counters().get("aclMaxId", 2) == 2
    assert rule(acls, late) in {NAMED, different}
    assert Rule.from_xattr(acls.getxattr(late, ACCESS)) is not None


def test_a_rule_that_says_no_more_than_mode_bits_becomes_mode_bits(acls: MetaService) -> None:
    ino = mkfile(acls, b"f")
    acls.setxattr(SUPER, ino, ACCESS, NAMED.to_xattr())
    acls.setxattr(SUPER, ino, ACCESS, Rule(6, 4, ABSENT, 0, (), ()).to_xattr())
    attr = acls.getattr(ino)
    assert (attr.access_acl, attr.mode) == (0, 0o640)
    acls.setxattr(SUPER, ino, ACCESS, NAMED.to_xattr())
    acls.setxattr(SUPER, ino, ACCESS, struct.pack("<I", 2))
    assert acls.getattr(ino).access_acl == 0
    masked = Rule(6, 4, 4, 0, (), ())
    acls.setxattr(SUPER, ino, ACCESS, masked.to_xattr())
    assert rule(acls, ino) == masked, "a mask alone is more than a mode can say"


def test_chmod_changes_the_mask_not_the_group(acls: MetaService) -> None:
    ino = mkfile(acls, b"f", who=ALICE)
    acls.setxattr(ALICE, ino, ACCESS, NAMED.to_xattr())
    attr = acls.setattr(ALICE, ino, AttrChange(mode=0o741))
    assert attr.mode == 0o741
    assert rule(acls, ino) == NAMED._replace(mask=4, other=1)
    assert acls.setattr(ALICE, ino, AttrChange(mode=0o760)).access_acl == 1, "the first rule is found again"


def test_children_inherit_the_default_rule(acls: MetaService) -> None:
    top = mkdir(acls, b"d", who=ALICE, mode=0o755)
    default = Rule(7, 7, 7, 5, ((BOB.uid, 7),), ())
    acls.setxattr(ALICE, top, DEFAULT, default.to_xattr())
    assert acls.getattr(top).mode == 0o755
    assert acls.listxattr(top) == [DEFAULT]
    asks = Caller(uid=ALICE.uid, gid=ALICE.gid, umask=0o077)
    file, attr = acls.create(asks, top, b"f", 0o666)
    assert attr.mode == 0o664, "the umask does not count"
    assert rule(acls, file) == Rule(6, 7, 6, 4, ((BOB.uid, 7),), ())
    assert attr.default_acl == 0
    below, attr = acls.mkdir(asks, top, b"e", 0o777)
    assert attr.mode == 0o775
    assert rule(acls, below, DEFAULT) == default
    assert rule(acls, below) == default
    fifo, attr = acls.mknod(asks, top, b"p", Kind.FIFO, 0o640)
    assert attr.mode == 0o640
    assert rule(acls, fifo).mask == 4
    link, attr = acls.symlink(asks, top, b"s", b"f")
    assert (attr.access_acl, attr.default_acl, attr.mode) == (0, 0, 0o777)
    _, attr = acls.create(asks, mkdir(acls, b"plain", who=ALICE), b"f", 0o666)
    assert attr.mode == 0o600, "without a default rule the umask counts"
    with pytest.raises(Unsupported):
        acls.setxattr(SUPER, link, ACCESS, NAMED.to_xattr())


def test_a_minimal_default_rule_masks_the_mode(acls: MetaService) -> None:
    top = mkdir(acls, b"d", who=ALICE, mode=0o2755)
    default = Rule(7, 5, ABSENT, 1, (), ())
    acls.setxattr(ALICE, top, DEFAULT, default.to_xattr())
    assert rule(acls, top, DEFAULT) == default
    _, attr = acls.create(ALICE, top, b"f", 0o6666)
    assert (attr.mode, attr.access_acl) == (0o6640, 0)
    _, attr = acls.mkdir(ALICE, top, b"e", 0o777)
    assert attr.mode == 0o2751
    assert attr.default_acl == acls.getattr(top).default_acl


def test_what_a_default_rule_leaves_out_comes_from_the_mode(acls: MetaService) -> None:
    top = mkdir(acls, b"d", mode=0o751)
    acls.setxattr(SUPER, top, DEFAULT, Rule(ABSENT, ABSENT, 7, ABSENT, ((5, 7),), ()).to_xattr())
    assert rule(acls, top, DEFAULT) == Rule(7, 5, 7, 1, ((5, 7),), ())


def test_rules_are_obeyed(acls: MetaService) -> None:
    ino = mkfile(acls, b"f", who=ALICE)
    acls.setxattr(ALICE, ino, ACCESS, NAMED.to_xattr())
    acls.access(BOB, ino, 6)
    acls.access(CAROL, ino, 4)
    for who, mask in ((BOB, 1), (CAROL, 2), (Caller(9, 9), 4)):
        with pytest.raises(Denied):
            acls.access(who, ino, mask)
    acls.open_file(BOB, ino, write=True)
    acls.close_file(ino)
    with pytest.raises(Denied):
        acls.open_file(CAROL, ino, write=True)
    acls.setattr(ALICE, ino, AttrChange(mode=0o700))
    with pytest.raises(Denied):
        acls.access(BOB, ino, 4)
    top = mkdir(acls, b"d", who=ALICE, mode=0o700)
    with pytest.raises(Denied):
        acls.create(BOB, top, b"x", 0o644)
    acls.setxattr(ALICE, top, ACCESS, Rule(7, 0, 7, 0, ((BOB.uid, 7),), ()).to_xattr())
    mkfile(acls, b"x", parent=top, who=BOB)
    acls.lookup(BOB, top, b"x")
    acls.unlink(BOB, top, b"x")
    acls.setxattr(ALICE, top, ACCESS, Rule(7, 0, 7, 0, (), ((30, 1), (CAROL.gid, 2))).to_xattr())
    acls.access(CAROL, top, 1)
    acls.access(CAROL, top, 2)
    with pytest.raises(Denied):
        acls.create(CAROL, top, b"x", 0o644)  # one entry has to grant all that is asked at once


def test_a_clone_keeps_its_rule_within_the_umask(acls: MetaService) -> None:
    top = mkdir(acls, b"d", who=ALICE, mode=0o755)
    ino = mkfile(acls, b"f", parent=top, who=ALICE)
    for node in (top, ino):
        acls.setxattr(ALICE, node, ACCESS, Rule(7, 5, 7, 5, ((BOB.uid, 7),), ()).to_xattr())
    careful = Caller(uid=BOB.uid, gid=BOB.gid, umask=0o027)
    _, attr = acls.clone(careful, top, ROOT, b"e")
    file, below = acls.resolve(SUPER, b"/e/f")
    assert (attr.mode, below.mode) == (0o750, 0o750)
    assert rule(acls, file) == Rule(7, 5, 5, 0, ((BOB.uid, 7),), ())
    _, same = acls.clone(careful, ino, ROOT, b"g", preserve=True)
    assert (same.mode, same.access_acl) == (0o775, acls.getattr(ino).access_acl)


def test_who_may_set_what(acls: MetaService) -> None:
    ino = mkfile(acls, b"f", who=ALICE)
    with pytest.raises(NotPermitted):
        acls.setxattr(BOB, ino, ACCESS, NAMED.to_xattr())
    with pytest.raises(Denied):
        acls.setxattr(ALICE, ino, DEFAULT, NAMED.to_xattr())
    with pytest.raises(Invalid):
        acls.setxattr(ALICE, ino, ACCESS, b"junk")
    with pytest.raises(NoAttribute):
        acls.setxattr(ALICE, ino, ACCESS, NAMED.to_xattr(), mode="replace")
    acls.setxattr(ALICE, ino, ACCESS, NAMED.to_xattr(), mode="create")
    with pytest.raises(Exists):
        acls.setxattr(ALICE, ino, ACCESS, NAMED.to_xattr(), mode="create")
    acls.setattr(SUPER, ino, AttrChange(flags=1))
    with pytest.raises(NotPermitted):
        acls.removexattr(SUPER, ino, ACCESS)
    acls.setattr(SUPER, ino, AttrChange(flags=0))
    acls.setattr(SUPER, ino, AttrChange(mode=0o2770, gid=50))
    acls.setxattr(SUPER, ino, ACCESS, NAMED.to_xattr())
    assert acls.getattr(ino).mode == 0o2760
    acls.setxattr(ALICE, ino, ACCESS, NAMED._replace(mask=7).to_xattr())
    assert acls.getattr(ino).mode == 0o770, "setgid goes when the owner is no member of the group"


def test_a_volume_without_acls(make_meta: MakeMeta) -> None:
    meta = make_meta()
    ino = mkfile(meta, b"f")
    with pytest.raises(Unsupported):
        meta.setxattr(SUPER, ino, ACCESS, NAMED.to_xattr())
    with pytest.raises(Unsupported):
        meta.getxattr(ino, ACCESS)
    assert meta.listxattr(ino) == []


def test_clients_at_the_same_time(make_meta: MakeMeta) -> None:
    clients = [make_meta(setting=ACL), make_meta()]
    inos = [mkfile(clients[0], b"f%d" % number) for number in range(4)]

    def work(number: int) -> None:
        meta = clients[number % 2]
        for turn in range(10):
            mine = Rule(7, number, turn % 8, 0, ((turn, 7),), ())
            meta.setxattr(SUPER, inos[number], ACCESS, mine.to_xattr())
            assert meta.setattr(SUPER, inos[number], AttrChange(mode=0o750)).mode == 0o750

    together(*(lambda number=number: work(number) for number in range(4)))
    numbers = stored(clients[0])
    for number, ino in enumerate(inos):
        attr = clients[0].getattr(ino, fresh=True)
        assert numbers[attr.access_acl] == Rule(7, number, 5, 0, ((9, 7),), ())


def test_rules_are_loaded_once(make_meta: MakeMeta, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rule that is new to a client loads them all; the next ones only what came since."""
    one, two = make_meta(setting=ACL), make_meta()
    rules = [NAMED._replace(users=((number, 7),)) for number in range(5)]
    inos = [mkfile(one, b"%d" % number) for number in range(5)]
    for ino, rule in zip(inos[:3], rules, strict=False):
        one.setxattr(SUPER, ino, ACCESS, rule.to_xattr())
    loaded: list[int] = []
    acls = two.engine.acls

    def counted(after: int = 0) -> dict[int, bytes]:
        found = acls(after)
        loaded.append(len(found))
        return found

    monkeypatch.setattr(two.engine, "acls", counted)
    assert two.getxattr(inos[2], ACCESS) == rules[2].to_xattr(), "one that is known by its number alone"
    two.setxattr(SUPER, inos[0], ACCESS, rules[3].to_xattr())
    assert loaded == [3]
    one.setxattr(SUPER, inos[1], ACCESS, rules[4].to_xattr())
    loaded.clear()
    two.setxattr(SUPER, inos[3], ACCESS, rules[4].to_xattr())
    two.setxattr(SUPER, inos[4], ACCESS, rules[0].to_xattr())
    assert loaded == [2], "its own one and the other's"
    monkeypatch.undo()
    assert len(one.engine.acls()) == 5, "none is stored twice"


def test_records_of_rules(meta_engine: MetaEngine) -> None:
    """What an engine promises: numbers from 1, the bytes of the format, whatever a rule holds."""
    engine = meta_engine
    engine.init_volume(b"{}", {})
    rules = [NAMED, Rule(ABSENT, ABSENT, ABSENT, ABSENT, (), ()), NAMED._replace(users=((0xFFFFFFFF, 7), (0, 0)))]
    assert [engine.add_acl(one.render()) for one in rules] == [1, 2, 3]
    assert engine.acls() == {number: one.render() for number, one in enumerate(rules, 1)}
    for after in range(5):
        later = {number: one.render() for number, one in enumerate(rules, 1) if number > after}
        assert engine.acls(after) == later
    with engine.view() as view:
        assert [view.acl(number) for number in (1, 2, 3)] == [one.render() for one in rules]
        assert view.acl(4) is None
    assert "acl" in engine.used_features()


def test_a_volume_with_rules_is_open_to_writers(acls: MetaService, engine_url: str) -> None:
    acls.setxattr(SUPER, mkfile(acls, b"f"), ACCESS, NAMED.to_xattr())
    with MetaService.open(open_engine(engine_url), background=False) as late:
        assert rule(late, late.lookup(SUPER, ROOT, b"f")[0]) == NAMED
