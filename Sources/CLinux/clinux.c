#include "clinux.h"

#include <string.h>

const char *linux_error_name(int error)
{
	const char *name = strerrorname_np(error);

	return name ? name : "unknown errno";
}

const char *linux_error_text(int error)
{
	const char *text = strerrordesc_np(error);

	return text ? text : "no description";
}
