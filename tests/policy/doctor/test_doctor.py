"""Each finding on a host that is healthy but for one thing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.policy.doctor.cases import BEHIND, BRIDGE_ABOVE, NIC, A, B, case, device, found, groups_of
from vfioctl.model import LockLimit, Node, Readings, Unread, Use
from vfioctl.policy.doctor import examine, findings, healthy
from vfioctl.policy.doctor.findings import Severity

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
TYPE1 = "/sys/module/vfio_iommu_type1/parameters"
RULES = "/etc/modprobe.d/local.conf"
TAKEN = B._replace(driver="vfio-pci")
OLD_BRIDGE = BRIDGE_ABOVE._replace(driver="shpchp")


def test_a_healthy_host_has_nothing() -> None:
    checks = examine(case())
    assert healthy(checks) and findings(checks) == []
    assert {check.name for check in checks if not check.known} == {"lockdown", "secure-boot"}
    assert found(case(asked=(A,), candidates=(A,), texts=resettable(A))) == {}


def resettable(*devices: Any) -> dict[str, str]:
    homes = [f"/sys/bus/pci/devices/{d.address}" for d in devices]
    return {
        f"{home}/{name}": text for home in homes for name, text in (("reset", ""), ("reset_method", "flr"))
    }


def test_the_gravest_come_first() -> None:
    given = case(OLD_BRIDGE, BEHIND, modules={"vfio": "missing"}, texts={"/proc/sys/kernel/tainted": "64"})
    assert [f.severity for f in findings(examine(given))] == [ERROR, WARNING, INFO]
    assert not healthy(examine(given))


CASES = [
    ("no-iommu", ERROR, {"groups": (), "kernel": {"iommu_units": ()}}),
    ("interrupts-not-isolated", ERROR, {"kernel": {"interrupts_isolated": False}}),
    ("module-missing", ERROR, {"modules": {"vfio_pci": "missing"}}),
    ("module-missing", ERROR, {"modules": {"vfio_iommu_type1": "missing", "iommufd": "missing"}}),
    ("module-forbidden", ERROR, {"texts": {RULES: "install vfio-pci /bin/false\n"}}),
    ("module-forbidden", ERROR, {"cmdline": "module_blacklist=nouveau,vfio_pci"}),
    ("module-blacklisted", INFO, {"texts": {RULES: "# mine\nblacklist vfio_pci\n"}}),
    ("module-blacklisted", INFO, {"cmdline": "modprobe.blacklist=vfio-pci"}),
    ("unsafe-interrupts", WARNING, {"texts": {f"{TYPE1}/allow_unsafe_interrupts": "Y"}}),
    ("unsafe-interrupts", WARNING, {"texts": {"/sys/module/iommufd/parameters/allow_unsafe_interrupts": "Y"}}),
    ("unsafe-interrupts", WARNING, {"cmdline": "vfio_iommu_type1.allow_unsafe_interrupts=1"}),
    ("noiommu-mode", WARNING, {"texts": {RULES: "options vfio enable_unsafe_noiommu_mode=1"}}),
    ("taint-user", INFO, {"texts": {"/proc/sys/kernel/tainted": "4160"}}),
    ("acs-override", WARNING, {"cmdline": "quiet pcie_acs_override=downstream,multifunction"}),
    ("lockdown", INFO, {"texts": {"/sys/kernel/security/lockdown": "none [integrity] confidentiality"}}),
    ("huge-pages-disabled", WARNING, {"texts": {f"{TYPE1}/disable_hugepages": "Y"}}),
    ("ids-malformed", WARNING, {"texts": {RULES: "options vfio-pci ids=8086-10d3\n"}}),
    ("ids-unmatched", INFO, {"cmdline": "vfio-pci.ids=10de:1234"}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "severity", "fault"), CASES)
def test_one_fault_is_one_finding(code: str, severity: Severity, fault: dict[str, Any]) -> None:
    given = case(**fault)
    (finding,) = findings(examine(given))
    assert (finding.code, finding.severity) == (code, severity)
    assert finding.evidence and all(evidence.value for evidence in finding.evidence)
    assert finding.cure or severity is INFO
    assert healthy(examine(given)) is (severity is INFO)


def test_what_is_in_order_is_no_finding() -> None:
    for fine in (
        {"texts": {f"{TYPE1}/allow_unsafe_interrupts": "N", "/proc/sys/kernel/tainted": "4097"}},
        {
            "texts": {
                RULES: "options vfio_iommu_type1 allow_unsafe_interrupts=0\n#blacklist vfio\n\noptions\n"
            }
        },
        {"texts": {RULES: "install vfio-pci /sbin/modprobe --ignore-install vfio-pci\nblacklist nouveau\n"}},
        {"texts": {"/sys/kernel/security/lockdown": "[none] integrity confidentiality"}},
        {"modules": {"vfio_iommu_type1": "missing", "iommufd": "built-in"}},
        {"modules": {"vfio_pci": "built-in"}, "texts": {RULES: "install vfio-pci /bin/false\n"}},
        {
            "kernel": {"machine": "ppc64le"},
            "modules": {"vfio_iommu_spapr_tce": "loaded", "vfio_iommu_type1": "missing"},
        },
    ):
        assert found(case(**fine)) == {}  # type: ignore[arg-type]


def test_what_may_not_be_read_is_unknown() -> None:
    given = case(
        texts={"/sys/kernel/security/lockdown": Unread.FORBIDDEN},
        modules={"vfio_pci": None, "vfio": "loaded"},
    )
    unknown = {check.name: check.detail for check in examine(given) if not check.known}
    assert set(unknown) == {"lockdown", "modules", "secure-boot"}
    assert "root may read it" in unknown["lockdown"]
    assert found(given) == {}
    given = case(texts={RULES: Unread.FORBIDDEN, "/etc/modprobe.d/": Unread.FORBIDDEN})
    unknown = {check.name: check.detail for check in examine(given) if not check.known}
    assert unknown["ids"] == unknown["module-rules"] == f"only root may read {RULES}, /etc/modprobe.d/"


class TestIommu:
    def test_off_on_the_command_line(self) -> None:
        given = case(groups=(), kernel={"iommu_units": ()}, cmdline="quiet intel_iommu=off")
        finding = found(given)["no-iommu"]
        assert finding.cure == "take intel_iommu=off off the kernel command line and boot again"
        assert ("/proc/cmdline", "quiet intel_iommu=off") in finding.evidence

    def test_not_on_the_command_line(self) -> None:
        finding = found(case(groups=(), kernel={"iommu_units": ()}))["no-iommu"]
        assert "add intel_iommu=on" in (finding.cure or "")
        assert finding.evidence[1].value == "DMAR"

    def test_groups_that_come_with_a_driver(self) -> None:
        free = device("0000:01:00.0", None)
        assert found(case(free, groups=(), kernel={"iommu_units": ("smmu3.0x9050000",)})) == {}

    def test_a_device_that_is_left_out(self) -> None:
        outside = device("0000:00:02.0", None, "i915")
        assert found(case(A, outside))["outside-iommu"].severity is INFO
        its_own = device("0000:00:00.2", None, None, NIC._replace(class_="080600"))
        assert found(case(A, its_own)) == {}

    def test_a_direct_region_is_graver_where_the_group_is_wanted(self) -> None:
        for mine, severity in ((A, WARNING), (A._replace(driver="vfio-pci"), ERROR)):
            given = case(mine, B, groups=groups_of(mine, B, regions={1: "direct"}))
            assert found(given)["direct-region"].severity is severity
        groups = groups_of(A, B, regions={1: "direct"})
        assert found(case(A, B, groups=groups, asked=(A,)))["direct-region"].severity is ERROR
        assert "direct-region" not in found(case(A, B, groups=groups, asked=(B,)))
        assert found(case(A, groups=groups_of(A, regions={1: "direct-relaxable"}))) == {}


class TestDrivers:
    def test_the_driver_of_a_bridge(self) -> None:
        assert found(case(OLD_BRIDGE, BEHIND))["bridge-driver"].severity is WARNING
        cardbus = OLD_BRIDGE._replace(driver="yenta_cardbus", pci=NIC._replace(class_="060700"))
        assert found(case(cardbus, BEHIND)) == {}
        assert "bridge-driver" in found(case(cardbus, BEHIND._replace(driver="vfio-pci")))
        assert found(case(OLD_BRIDGE)) == {}, "nothing behind it could be assigned"
        bound = BEHIND._replace(driver="vfio-pci")
        finding = found(case(OLD_BRIDGE, bound))["bridge-driver"]
        assert (finding.severity, finding.subject) == (ERROR, OLD_BRIDGE.address)
        assert finding.cure == f"vfioctl unbind --leave-unbound {OLD_BRIDGE.address}"
        assert found(case(OLD_BRIDGE, BEHIND, kernel={"release": "5.10.1"})) == {}

    def test_a_sibling_with_a_host_driver(self) -> None:
        sibling = device("0000:01:00.1", 1, "snd_hda_intel")
        free = A._replace(driver=None)
        assert found(case(free, sibling)) == {}, "an ordinary driver of an ordinary device"
        asked = case(free, sibling, asked=(free,))
        assert found(asked)["host-driver"].cure == f"vfioctl bind {sibling.address}"
        group = groups_of(free, sibling)[0]
        assert "host-driver" not in found(case(free, sibling, asked=(group,))), "a bind of the group takes it"
        bound = A._replace(driver="vfio-pci")
        assert found(case(bound, sibling))["host-driver"].severity is ERROR


class TestNodes:
    def test_open_to_everybody(self) -> None:
        given = case(TAKEN, groups=groups_of(TAKEN, nodes={2: 0o666}))
        finding = found(given)["node-world-writable"]
        assert (finding.severity, finding.subject) == (WARNING, "/dev/vfio/2")
        cdev = TAKEN._replace(cdev=Node("/dev/vfio/devices/vfio0", 0, 0, 0o662))
        assert found(case(cdev))["node-world-writable"].subject == "/dev/vfio/devices/vfio0"
        assert found(case(TAKEN, groups=groups_of(TAKEN, nodes={2: 0o660}))) == {}

    @pytest.mark.parametrize(
        ("node", "expected"),
        [(Node("/dev/vfio/vfio", 0, 0, 0o600), {"container-node-closed"}), (Unread.ABSENT, set())],
    )
    def test_the_node_of_containers(self, node: Node | Unread, expected: set[str]) -> None:
        given = case()
        readings = Readings(given.readings.texts, {"/dev/vfio/vfio": node}, given.readings.modules)
        assert set(found(given._replace(readings=readings))) == expected


class TestIds:
    def test_twins(self) -> None:
        for entry in ("8086:10d3", "0x8086:10D3", "8086:ffffffff", "8086:10d3:8086:0:020000:ff0000"):
            given = case(A._replace(driver=None), B, texts={RULES: f"options vfio-pci ids=10de:1,{entry}\n"})
            finding = found(given)["ids-take-twins"]
            assert A.address in finding.detail and B.address in finding.detail
            assert finding.evidence[0].file == RULES
        for entry in ("8086:10d3:1234", "8086:10d3:8086:0:030000:ff0000", "8086:10d4"):
            given = case(A._replace(driver=None), B, texts={RULES: f"options vfio-pci ids={entry}\n"})
            assert set(found(given)) == {"ids-unmatched"}

    def test_a_driver_that_comes_before(self) -> None:
        option = "options vfio-pci ids=8086:10d3\n"
        assert set(found(case(A, texts={RULES: option}))) == {"ids-too-late"}
        assert found(case(A, texts={RULES: f"{option}softdep e1000e pre: vfio-pci\n"})) == {}
        assert found(case(A._replace(driver="vfio-pci"), texts={RULES: option})) == {}

    def test_a_line_that_goes_on(self) -> None:
        given = case(A, B, texts={RULES: "options vfio-pci \\\n  disable_vga=1 ids=8086:10d3\n"})
        assert "ids-take-twins" in found(given)


class TestMemory:
    def lock(self, soft: int | None, **more: Any) -> LockLimit:
        return LockLimit("process 7", soft, soft, "/proc/7/limits", "Max locked memory", **more)

    def test_too_small(self) -> None:
        finding = found(case(lock=self.lock(8 << 20)))["memlock-too-small"]
        assert finding.severity is WARNING and finding.cure == "prlimit --pid 7 --memlock=67108864:67108864"
        assert found(case(lock=self.lock(8 << 20), memory=1 << 30))["memlock-too-small"].severity is ERROR
        taken = self.lock(1 << 30, charged=(1 << 30) - 4096)
        cure = found(case(lock=taken, memory=8192))["memlock-too-small"].cure
        assert cure == f"prlimit --pid 7 --memlock={(1 << 30) + 4096}:{(1 << 30) + 4096}"

    def test_enough(self) -> None:
        for lock in (self.lock(None), self.lock(64 << 20), self.lock(0, exempt=True)):
            assert found(case(lock=lock)) == {}
        assert found(case(lock=self.lock(4096), memory=4096)) == {}
        checks = examine(case(lock="nobody told"))
        assert [check.detail for check in checks if check.name == "memlock" and not check.known] == [
            "nobody told"
        ]

    @pytest.mark.parametrize(
        ("who", "path", "cure"),
        [
            ("unit libvirtd.service", "/etc/x", "systemctl restart libvirtd.service"),
            ("user alice", "/etc/security/limits.conf", "alice - memlock 1024"),
            ("uid 1000", "/proc/self/limits", "ulimit -l 1024"),
        ],
    )
    def test_the_cure_is_that_of_whose_limit_it_is(self, who: str, path: str, cure: str) -> None:
        lock = LockLimit(who, 4096, None, path, "4")
        assert cure in (found(case(lock=lock, memory=1 << 20))["memlock-too-small"].cure or "")

    def test_a_hard_limit_takes_root(self) -> None:
        lock = LockLimit("uid 1000", 4096, 8192, "/proc/self/limits", "4")
        cure = found(case(lock=lock, memory=1 << 20))["memlock-too-small"].cure
        assert cure is not None and "':1000 - memlock 1024'" in cure

    def test_huge_pages_that_were_not_to_be_had(self) -> None:
        pool = "/sys/kernel/mm/hugepages/hugepages-1048576kB"
        texts = {f"{pool}/nr_hugepages": "3", f"{pool}/free_hugepages": "3"}
        for line, fewer in (
            ("hugepagesz=1G hugepages=4", True),
            ("default_hugepagesz=1G hugepages=4", True),
            ("hugepagesz=1G hugepages=3 hugepagesz=2M hugepages=99", False),
            ("hugepages=4 hugepagesz=0G hugepagesz=x hugepages=9", False),
        ):
            assert ("huge-pages-fewer" in found(case(texts=texts, cmdline=line))) is fewer, line


class TestDevice:
    def ask(self, subject: Any, **more: Any) -> dict[str, Any]:
        texts = {**resettable(subject), **more.pop("texts", {})}
        others = more.pop("others", ())
        return found(case(subject, *others, asked=(subject,), candidates=(subject,), texts=texts, **more))

    def test_only_what_keeps_it_from_working_is_told_of_the_host(self) -> None:
        unsafe = {f"{TYPE1}/allow_unsafe_interrupts": "Y"}
        assert self.ask(A, texts=unsafe) == {}
        assert set(self.ask(A, modules={"vfio": "missing"})) == {"module-missing"}

    def test_no_group(self) -> None:
        alone = device("0000:00:02.0", None, "i915")
        assert self.ask(alone, others=(B,))["no-iommu-group"].severity is ERROR
        assert set(self.ask(alone, groups=(), kernel={"iommu_units": ()})) == {"no-iommu"}

    def test_a_bridge(self) -> None:
        assert self.ask(BRIDGE_ABOVE)["bridge"].severity is ERROR

    def test_a_group_of_bridges(self) -> None:
        group = groups_of(BRIDGE_ABOVE)[0]
        assert set(found(case(BRIDGE_ABOVE, asked=(group,)))) == {"nothing-to-assign"}

    def test_a_bus_without_a_vfio_driver(self) -> None:
        other = A._replace(bus="usb", pci=None, address="1-1", driver=None)
        assert set(self.ask(other)) == {"no-vfio-driver"}

    def test_the_denylist(self) -> None:
        qat = device("0000:01:00.0", 1, None, NIC._replace(device="37c8"))
        assert self.ask(qat)["denylisted"].severity is ERROR
        switch = "/sys/module/vfio_pci/parameters/disable_denylist"
        later = {RULES: "options vfio-pci disable_denylist=1\n"}
        assert self.ask(qat, texts={switch: "Y"}) == self.ask(qat, texts=later) == {}
        assert set(self.ask(qat, texts={switch: "N", **later})) == {"denylisted"}

    def test_a_driver_made_for_it(self) -> None:
        variants = {A.key: "mlx5_vfio_pci"}
        assert self.ask(A, variants=variants)["variant-driver"].severity is INFO
        assert self.ask(A._replace(driver="mlx5_vfio_pci"), variants=variants) == {}

    def test_uses(self) -> None:
        uses = {
            A.key: (
                Use("root-disk", "sda is mounted on /"),
                Use("has-data", "udev has found ext4", refuses=False),
                Use("unseen", "3 processes", refuses=False),
            )
        }
        told = self.ask(A, uses=uses)
        assert {code: finding.severity for code, finding in told.items()} == {
            "root-disk": WARNING,
            "has-data": INFO,
        }
        assert told["root-disk"].cure == (
            f"to take it from the host all the same: vfioctl bind {A.address} --allow root-disk"
        )
        assigned = {A.key: (Use("virtual-functions-assigned", "its virtual functions are on VFIO"),)}
        assert self.ask(A, uses=assigned)["virtual-functions-assigned"].severity is ERROR

    def test_a_frame_buffer_on_what_somebody_has_assigned(self) -> None:
        taken = A._replace(driver="vfio-pci")
        uses = {A.key: (Use("firmware-framebuffer", "BOOTFB has the firmware's frame buffer in it"),)}
        given = case(taken, candidates=(taken,), uses=uses)
        assert found(given)["firmware-framebuffer"].severity is ERROR

    def test_power_and_reset(self) -> None:
        home = f"/sys/bus/pci/devices/{A.address}"
        cold = self.ask(A, texts={f"{home}/power_state": "D3cold", f"{home}/d3cold_allowed": "1"})
        assert [e.file for e in cold["d3cold"].evidence] == [f"{home}/power_state", f"{home}/d3cold_allowed"]
        assert self.ask(A, texts={f"{home}/reset": Unread.ABSENT})["no-reset"].severity is WARNING
        off = self.ask(A, texts={f"{home}/reset_method": ""})["no-reset"]
        assert off.cure == f"echo default > {home}/reset_method"
        old_kernel = {f"{home}/reset_method": Unread.ABSENT}
        assert self.ask(A, texts=old_kernel) == {}
        beside = device("0000:01:00.1", 2, None)
        shared = self.ask(A, others=(beside,), texts={f"{home}/reset_method": "bus"})
        assert shared["bus-reset-only"].severity is INFO
        assert self.ask(A, texts={f"{home}/reset_method": "bus"}) == {}
