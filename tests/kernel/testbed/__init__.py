"""Real Debian kernels in an emulated machine, for the tests under ``tests/kernel/guest``.

``debian`` finds and downloads the packages, ``kernel`` makes them bootable, ``rebuild`` gives a
kernel VFIO modules with what Debian leaves out (built by ``toolchain``), ``root`` is what a guest of another
architecture runs, ``machine`` and ``foreign`` say what hardware there is, ``guest`` runs one virtual machine,
``host_plugin`` and ``guest_plugin`` are the two ends of pytest.

A test says where it runs by its markers: ``@pytest.mark.kernels("6.12-iommufd", "7.2-iommufd")``,
``@pytest.mark.machine("amd-vi")``. Without them it runs on 6.1 and 7.2, in the standard machine. Tests of the same
kernel and machine share one boot.
"""
