#pragma once

// HALFTONE_ASAN and HALFTONE_TSAN: compiled with the address or the thread sanitizer.
#if defined(__SANITIZE_ADDRESS__)
#define HALFTONE_ASAN
#endif
#if defined(__SANITIZE_THREAD__)
#define HALFTONE_TSAN
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HALFTONE_ASAN
#endif
#if __has_feature(thread_sanitizer)
#define HALFTONE_TSAN
#endif
#endif

// HALFTONE_SANITIZED: a sanitizer has put an allocator of its own in the place of ours.
#if defined(HALFTONE_ASAN) || defined(HALFTONE_TSAN)
#define HALFTONE_SANITIZED
#endif
