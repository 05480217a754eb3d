/*
 * rdma_package.h - version and vendor of this build: of the core, of the providers, and the firmware version that the
 * software device reports.
 */
#ifndef RDMA_PACKAGE_H
#define RDMA_PACKAGE_H

/* A vendor who builds one provider of this tree sets both with -Xcc -DRDMA_PACKAGE_VERSION='"2.4"', as
 * scripts/vendor-package does. scripts/check-tree compares the default with the packages and the driver files. */
#ifndef RDMA_PACKAGE_VERSION
#define RDMA_PACKAGE_VERSION "1.0.0~rc1"
#endif
#ifndef RDMA_PACKAGE_VENDOR
#define RDMA_PACKAGE_VENDOR "swift-rdma"
#endif

/* Functions, because Swift does not import macros that are defined on the command line. */
static inline const char *rdma_package_version(void)
{
	return RDMA_PACKAGE_VERSION;
}

static inline const char *rdma_package_vendor(void)
{
	return RDMA_PACKAGE_VENDOR;
}

#endif /* RDMA_PACKAGE_H */
