/*
 * What "vfioctl --root TREE list-groups -J" does, in C: the yardstick of tests/bench/scale.py.
 *
 * The order and the kind of the system calls for each group and device must match vfioctl/host/reader.py (group(),
 * device()): whoever changes one changes the other. The output is byte for byte the same, and scale.py checks it.
 * Verdicts are computed for what the synthetic tree contains: PCI only, a kernel of 5.19 or newer, no 1:1 regions.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct list {
	char **name;
	size_t count, room;
};

struct node {
	char path[64];
	struct stat status;
	int there;
};

struct device {
	char address[32], class[8], vendor[8], id[8], subvendor[8], subid[8];
	char driver[64], override[64], vfio_dev[32];
	struct node cdev;
};

static const char *const VFIO_DRIVERS[] = { "vfio-pci", "mlx5_vfio_pci", "hisi_acc_vfio_pci" };
static const char *const TOLERATED[] = { "pcieport", "pci-stub", "fsl-pci" };

static int contains(const char *const *words, size_t count, const char *word)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(words[i], word))
			return 1;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_number(const void *a, const void *b)
{
	long x = atol(*(char *const *)a), y = atol(*(char *const *)b);

	return (x > y) - (x < y);
}

/* The sorted entries of a directory; none when it is not there. */
static struct list list_directory(DIR *directory, int (*order)(const void *, const void *))
{
	struct list list = { 0 };
	struct dirent *entry;

	if (!directory)
		return list;
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		if (list.count == list.room) {
			list.room = list.room ? 2 * list.room : 8;
			list.name = realloc(list.name, list.room * sizeof(*list.name));
			if (!list.name)
				err(1, "realloc");
		}
		list.name[list.count++] = strdup(entry->d_name);
	}
	closedir(directory);
	qsort(list.name, list.count, sizeof(*list.name), order);
	return list;
}

static void free_list(struct list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->name[i]);
	free(list->name);
}

static int has(const struct list *sorted, const char *name)
{
	return sorted->count && bsearch(&name, sorted->name, sorted->count, sizeof(*sorted->name), by_name);
}

/* The text of a file without its last newline; 0 when it is not there. */
static int read_text(int directory, const char *name, char *text, size_t size)
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return 0;
	length = read(fd, text, size - 1);
	close(fd);
	if (length < 0)
		return 0;
	while (length && text[length - 1] == '\n')
		length--;
	text[length] = 0;
	return 1;
}

static void read_link_name(int directory, const char *name, char *text, size_t size)
{
	char target[4096];
	ssize_t length = readlinkat(directory, name, target, sizeof(target) - 1);

	text[0] = 0;
	if (length < 0)
		return;
	target[length] = 0;
	snprintf(text, size, "%s", strrchr(target, '/') + 1);
}

static void stat_node(const char *root, struct node *node)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s%s", root, node->path);
	node->there = stat(path, &node->status) == 0;
}

static void parse_modalias(const char *text, struct device *device)
{
	char low[128];
	size_t i;

	for (i = 0; text[i] && i < sizeof(low) - 1; i++)
		low[i] = (char)tolower((unsigned char)text[i]);
	low[i] = 0;
	if (i < 53)
		return;
	snprintf(device->vendor, 5, "%.4s", low + 9);
	snprintf(device->id, 5, "%.4s", low + 18);
	snprintf(device->subvendor, 5, "%.4s", low + 28);
	snprintf(device->subid, 5, "%.4s", low + 38);
	snprintf(device->class, sizeof(device->class), "%.2s%.2s%.2s", low + 44, low + 48, low + 51);
}

static void read_device(const char *root, int group, const char *address, int has_group_node, int has_cdevs,
			struct device *device)
{
	char text[4096], path[300];
	int fd;

	memset(device, 0, sizeof(*device));
	snprintf(device->address, sizeof(device->address), "%s", address);
	snprintf(path, sizeof(path), "devices/%s", address);
	fd = openat(group, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read_text(fd, "modalias", text, sizeof(text)))
		parse_modalias(text, device);
	read_link_name(fd, "driver", device->driver, sizeof(device->driver));
	if ((device->driver[0] || has_group_node) && faccessat(fd, "vfio-dev", F_OK, 0) == 0) {
		int below = openat(fd, "vfio-dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		struct list found = list_directory(fdopendir(below), by_name);

		if (found.count)
			snprintf(device->vfio_dev, sizeof(device->vfio_dev), "%.31s", found.name[0]);
		free_list(&found);
	}
	if (device->driver[0] || !device->vfio_dev[0])
		if (read_text(fd, "driver_override", text, sizeof(text)) && strcmp(text, "(null)"))
			snprintf(device->override, sizeof(device->override), "%.63s", text);
	if (device->vfio_dev[0] && has_cdevs) {
		snprintf(device->cdev.path, sizeof(device->cdev.path), "/dev/vfio/devices/%s", device->vfio_dev);
		stat_node(root, &device->cdev);
	}
	close(fd);
}

static void print_text(const char *key, const char *text)
{
	if (text[0])
		printf("\"%s\": \"%s\"", key, text);
	else
		printf("\"%s\": null", key);
}

static void print_node(const char *key, const struct node *node)
{
	if (node->there)
		printf("\"%s\": {\"path\": \"%s\", \"uid\": %u, \"gid\": %u, \"mode\": \"%04o\"}", key, node->path,
		       node->status.st_uid, node->status.st_gid, node->status.st_mode & 07777);
	else
		printf("\"%s\": null", key);
}

static void print_regions(char *text)
{
	const char *comma = "";
	char *rest = NULL;

	printf("\"reserved_regions\": [");
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		unsigned long long start, end;
		char type[32];

		if (sscanf(line, "0x%llx 0x%llx %31s", &start, &end, type) != 3)
			continue;
		printf("%s{\"start\": %llu, \"end\": %llu, \"type\": \"%s\"}", comma, start, end, type);
		comma = ", ";
	}
	printf("]");
}

static void print_device(const struct device *device)
{
	print_text("address", device->address);
	printf(", \"bus\": \"pci\", ");
	print_text("class", device->class);
	printf(", ");
	print_text("vendor", device->vendor);
	printf(", ");
	print_text("device", device->id);
	printf(", ");
	print_text("subsystem_vendor", device->subvendor);
	printf(", ");
	print_text("subsystem_device", device->subid);
	printf(", ");
	print_text("driver", device->driver);
	printf(", ");
	print_text("driver_override", device->override);
	printf(", ");
	print_text("vfio_dev", device->vfio_dev);
	printf(", ");
	print_node("cdev", &device->cdev);
}

static void do_group(const char *root, const char *top, const char *number, const struct list *nodes, int has_cdevs)
{
	char path[4200], regions[4096], name[256], type[64];
	struct node node = { 0 };
	struct list links;
	struct device *devices;
	int fd, has_regions, has_type, viable = 1, members = 0;

	snprintf(path, sizeof(path), "%s/%s", top, number);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (has(nodes, number)) {
		snprintf(node.path, sizeof(node.path), "/dev/vfio/%.40s", number);
		stat_node(root, &node);
	}
	snprintf(path, sizeof(path), "%s/%s/devices", top, number);
	links = list_directory(opendir(path), by_name);
	devices = calloc(links.count + 1, sizeof(*devices));
	if (!devices)
		err(1, "calloc");
	for (size_t i = 0; i < links.count; i++) {
		const char *driver = devices[i].driver;

		read_device(root, fd, links.name[i], has(nodes, number), has_cdevs, &devices[i]);
		if (driver[0] && (devices[i].vfio_dev[0] || contains(VFIO_DRIVERS, 3, driver)))
			members++;
		else if (driver[0] && !contains(TOLERATED, 3, driver))
			viable = 0;
	}
	has_regions = read_text(fd, "reserved_regions", regions, sizeof(regions));
	name[0] = 0;
	if (faccessat(fd, "name", F_OK, 0) == 0)
		read_text(fd, "name", name, sizeof(name));
	has_type = read_text(fd, "type", type, sizeof(type));
	close(fd);

	printf("{\"id\": %s, ", number);
	print_text("name", name);
	printf(", ");
	print_text("type", has_type ? type : "");
	printf(", \"viable\": %s, \"usable\": %s, ", viable ? "true" : "false", viable && members ? "true" : "false");
	print_node("node", &node);
	printf(", ");
	if (!has_regions)
		regions[0] = 0;
	print_regions(regions);
	printf(", \"devices\": [");
	for (size_t i = 0; i < links.count; i++) {
		printf(i ? ", {" : "{");
		print_device(&devices[i]);
		printf("}");
	}
	printf("]}");
	free(devices);
	free_list(&links);
}

int main(int argc, char **argv)
{
	char path[4096], top[4096];
	struct list nodes, groups;

	if (argc != 2)
		errx(2, "usage: scale TREE");
	snprintf(path, sizeof(path), "%s/dev/vfio", argv[1]);
	nodes = list_directory(opendir(path), by_name);
	snprintf(top, sizeof(top), "%.4000s/sys/kernel/iommu_groups", argv[1]);
	groups = list_directory(opendir(top), by_number);
	printf("{\"schema_version\": 1, \"groups\": [");
	for (size_t i = 0; i < groups.count; i++) {
		if (i)
			printf(", ");
		do_group(argv[1], top, groups.name[i], &nodes, has(&nodes, "devices"));
	}
	printf("]}\n");
	return fflush(stdout) == 0 ? 0 : 1;
}
