"""Machines where assignment is refused later, or impossible: said before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.kernel.guest.conftest import Vfioctl
from tests.kernel.guest.sysfs import driver_of, group_of, override_of


@pytest.mark.machine("no-iommu")
def test_without_an_iommu_the_list_is_empty_and_explained(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    for arguments in ((), ("-J",)):
        result = vfioctl("list-groups", *arguments, user=Vfioctl.unprivileged)
        assert result.status == 0
        assert "no IOMMU groups" in result.stderr and "cure:" in result.stderr
        if arguments:
            assert result.json == {"schema_version": 1, "groups": []}
        else:
            assert result.stdout == ""
    device = vfioctl("list-devices", roles["edu"], "-J").json["devices"][0]
    assert (device["group"], device["viable"]) == (None, None)
    checked = vfioctl("check-viable", roles["edu"], "-J")
    assert checked.status == 1
    assert checked.json["results"][0]["problems"][0]["code"] == "no-iommu-group"
    refused = vfioctl("bind", roles["edu"], "-J")
    assert refused.status == 3
    assert refused.json_error["code"] == "no-iommu-group"
    assert (driver_of(roles["edu"]), override_of(roles["edu"])) == (None, None)
    assert vfioctl("map", roles["edu"], "-J").json_error["code"] == "no-iommu-group"


@pytest.mark.machine("rmrr")
def test_a_firmware_mapping_is_predicted_and_explained(vfioctl: Vfioctl, roles: Mapping[str, str]) -> None:
    result = vfioctl("check-viable", roles["edu"], "-J").json["results"][0]
    assert result["viable"] is True and result["usable"] is False
    assert "direct-region" in [problem["code"] for problem in result["problems"]]
    bound = vfioctl("bind", roles["edu"])
    assert bound.status == 0, bound.stderr
    assert "1:1" in bound.stderr
    group = group_of(roles["edu"])
    # GET_STATUS says viable all the same; the refusal comes with the container.
    assert vfioctl("check-viable", "-q", "--live", group).status == 0
    assert vfioctl("check-viable", "-q", "--live", "--usable", group).status == 1
    refused = vfioctl("map", group, "-J")
    assert refused.status == 7, refused.stderr
    assert refused.json_error["code"] == "direct-region"
    assert refused.json_error["errno"] in ("EINVAL", "EPERM")
    assert vfioctl("unbind", roles["edu"]).status == 0


@pytest.mark.machine("no-intremap")
def test_interrupts_that_are_not_isolated_are_predicted_and_explained(
    vfioctl: Vfioctl, roles: Mapping[str, str]
) -> None:
    result = vfioctl("check-viable", roles["edu"], "-J").json["results"][0]
    assert result["viable"] is True and result["usable"] is False
    assert "interrupts-not-isolated" in [problem["code"] for problem in result["problems"]]
    assert vfioctl("bind", roles["edu"]).status == 0
    refused = vfioctl("map", roles["edu"], "-J")
    assert refused.status == 7, refused.stderr
    assert (refused.json_error["code"], refused.json_error["errno"]) == ("interrupts-not-isolated", "EPERM")
    parameter = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    with open(parameter, "w") as file:
        file.write("Y")
    try:
        allowed = vfioctl("check-viable", "--usable", roles["edu"], "-J")
        assert allowed.status == 0, "the kernel would let it"
        problems = allowed.json["results"][0]["problems"]
        assert [problem["code"] for problem in problems] == ["interrupts-not-isolated"]
        assert vfioctl("map", roles["edu"]).status == 0
    finally:
        with open(parameter, "w") as file:
            file.write("N")
    assert vfioctl("unbind", roles["edu"]).status == 0
