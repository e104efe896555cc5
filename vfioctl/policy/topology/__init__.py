"""Why PCI functions share an IOMMU group: the kernel's decision retraced (floor 3, pure).

``facts``: what configuration space says of a function. ``isolation``: whether it lets what is behind it, or in it, talk
past the IOMMU. ``grouping``: the groups that Linux makes of them. ``rules``: the IOMMUs that group by another rule.
``explain`` and ``advice``: reasons, doubts and remedies for one group.
"""
