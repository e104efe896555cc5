/*
 * What "vfioctl map" does with a group, in C: the yardstick of tests/bench/mapping.py.
 *
 *   mapping GROUP SIZE CHUNK
 *
 * Opens a container of type1v2 with the group, maps anonymous memory of SIZE bytes, populates it, and maps it for
 * devices from IOVA 0 on in mappings of CHUNK bytes. Prints the seconds that the memory took (mmap and populating) and those of
 * the mapping loop; then unmaps.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <linux/vfio.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define HUGE_PAGE (2UL << 20)
/* As vfioctl does it: so many bytes at once, so that one can watch. */
#define STEP (64UL << 20)

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	char path[64];
	int container, group;
	uint64_t size, chunk, done;
	double began, populated, mapped;
	char *memory;

	if (argc != 4)
		errx(2, "usage: mapping GROUP SIZE CHUNK");
	size = strtoull(argv[2], NULL, 0);
	chunk = strtoull(argv[3], NULL, 0);
	snprintf(path, sizeof(path), "/dev/vfio/%.40s", argv[1]);
	container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	group = open(path, O_RDWR | O_CLOEXEC);
	if (container < 0 || group < 0)
		err(1, "open");
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		err(1, "set up");

	began = now();
	memory = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	memory = (char *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	madvise(memory, size, MADV_DONTFORK);
	madvise(memory, size, MADV_HUGEPAGE);
	for (done = 0; done < size; done += STEP)
		if (madvise(memory + done, size - done < STEP ? size - done : STEP, MADV_POPULATE_WRITE) && errno != EINVAL)
			err(1, "madvise");
	populated = now();
	for (done = 0; done < size; done += chunk) {
		struct vfio_iommu_type1_dma_map map = {
			.argsz = sizeof(map),
			.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
			.vaddr = (uintptr_t)memory + done,
			.iova = done,
			.size = size - done < chunk ? size - done : chunk,
		};

		if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
			err(1, "VFIO_IOMMU_MAP_DMA at %#llx", (unsigned long long)done);
	}
	mapped = now();
	printf("%.6f %.6f\n", populated - began, mapped - populated);
	return fflush(stdout) == 0 ? 0 : 1;
}
