/* order.h - see host/core/order.h */
#include "host/core/order.h"
