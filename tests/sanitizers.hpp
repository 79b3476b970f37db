#pragma once

// HALFTONE_SANITIZED: a sanitizer has put an allocator of its own in the place of ours.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HALFTONE_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HALFTONE_SANITIZED
#endif
#endif
