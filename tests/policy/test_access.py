"""Who may open a node: owner, mode, and an access control list beside them."""

from __future__ import annotations

from vfioctl.host.acl import decode, encode
from vfioctl.model import Access
from vfioctl.policy.access import KERNELS_OWN, AccessWish, NamedAccess

NODE = Access(0, 0, 0o600)
ALICE, BOB, KVM = NamedAccess("u", 1000, 6), NamedAccess("u", 7, 4), NamedAccess("g", 36, 4)


def test_what_is_not_said_stays() -> None:
    assert AccessWish().applied_to(NODE) == NODE
    assert AccessWish(uid=5).applied_to(Access(1, 2, 0o640)) == Access(5, 2, 0o640)


def test_a_list_and_its_mask() -> None:
    found = AccessWish(named=(ALICE, KVM, BOB)).applied_to(NODE)
    assert found == Access(0, 0, 0o660, "u::rw-,u:7:r--,u:1000:rw-,g::---,g:36:r--,m::rw-,o::---")
    assert found.acl is not None and decode(encode(found.acl)) == found.acl


def test_the_same_again_is_the_same() -> None:
    for wish in (AccessWish(named=(ALICE,)), AccessWish(1, 2, 0o640, (KVM, BOB))):
        once = wish.applied_to(NODE)
        assert wish.applied_to(once) == once


def test_a_list_goes_when_others_are_named() -> None:
    listed = AccessWish(named=(ALICE,)).applied_to(NODE)
    assert AccessWish(uid=7).applied_to(listed) == Access(7, 0, 0o600)
    assert KERNELS_OWN.applied_to(listed) == NODE
    assert AccessWish(named=(KVM,)).applied_to(listed).acl == "u::rw-,g::---,g:36:r--,m::r--,o::---"
