/*
 * A PKCS#11 module that stands before a real one and makes its tokens behave
 * like smart cards: one signature at a time, as slow as wanted; pulled out and
 * plugged in; with the warnings a card gives about its PIN. All else goes to
 * the real module unchanged.
 *
 * It is steered by files in the folder it lies in, so that each copy is steered
 * apart, from other processes too:
 *
 *   real            path of the real module
 *   env             NAME=VALUE lines, set before the real module is initialized
 *   delay.LABEL     microseconds one signature of that token takes
 *   state.LABEL     "N in" or "N out": plugged in for the Nth time, or pulled
 *                   out; sessions don't outlive a change of N
 *   flags.LABEL     CK_TOKEN_INFO flags to add, decimal
 *   logins.LABEL    grows by one byte at each C_Login
 *   signs.LABEL     grows by one byte at each signature made
 *
 * A LABEL's characters other than letters, digits, dot and dash become
 * underscores; "delay" alone is for tokens without a file of their own.
 *
 * The few types needed are declared here (PKCS#11 base specification 2.40,
 * appendix B), so that no header is.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long ulong_t;
typedef ulong_t rv_t;
typedef struct { unsigned char major, minor; } version_t;

/* CK_FUNCTION_LIST: a version and 68 functions, in this order. */
enum {
	INITIALIZE, FINALIZE, GET_INFO, GET_FUNCTION_LIST, GET_SLOT_LIST, GET_SLOT_INFO, GET_TOKEN_INFO, GET_MECHANISM_LIST,
	GET_MECHANISM_INFO, INIT_TOKEN, INIT_PIN, SET_PIN, OPEN_SESSION, CLOSE_SESSION, CLOSE_ALL_SESSIONS, GET_SESSION_INFO,
	GET_OPERATION_STATE, SET_OPERATION_STATE, LOGIN, LOGOUT, CREATE_OBJECT, COPY_OBJECT, DESTROY_OBJECT, GET_OBJECT_SIZE,
	GET_ATTRIBUTE_VALUE, SET_ATTRIBUTE_VALUE, FIND_OBJECTS_INIT, FIND_OBJECTS, FIND_OBJECTS_FINAL, ENCRYPT_INIT, ENCRYPT,
	ENCRYPT_UPDATE, ENCRYPT_FINAL, DECRYPT_INIT, DECRYPT, DECRYPT_UPDATE, DECRYPT_FINAL, DIGEST_INIT, DIGEST, DIGEST_UPDATE,
	DIGEST_KEY, DIGEST_FINAL, SIGN_INIT, SIGN, FUNCTIONS = 68
};
typedef struct { version_t version; void *f[FUNCTIONS]; } list_t;

typedef struct {
	unsigned char label[32], manufacturer[32], model[16], serial[16];
	ulong_t flags, counts[10];
	version_t hardware, firmware;
	char time[16];
} token_info_t;
typedef struct {
	unsigned char description[64], manufacturer[32];
	ulong_t flags;
	version_t hardware, firmware;
} slot_info_t;
typedef struct { ulong_t slot, state, flags, error; } session_info_t;

enum {
	OK = 0, GENERAL_ERROR = 5, BUFFER_TOO_SMALL = 0x150, DEVICE_REMOVED = 0x32, TOKEN_NOT_PRESENT = 0xe0,
	TOKEN_PRESENT = 1, REMOVABLE_DEVICE = 2, HW_SLOT = 4, SLOTS = 64
};

static list_t *real, ours;
static char folder[PATH_MAX];

/* One slot that was seen. Never freed; slots of a real module stay few. */
typedef struct {
	ulong_t id;
	int used;
	long plugged;          /* N of state.LABEL when last looked at */
	pthread_mutex_t one;   /* held during a signature */
} slot_t;
static slot_t slots[SLOTS];

/* Held for writing while sessions are ended behind their users' backs. */
static pthread_rwlock_t pulling = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;

#define REAL(n, ...) ((rv_t (*)())real->f[n])(__VA_ARGS__)

static void file_name(char *out, const char *kind, const char *label)
{
	snprintf(out, PATH_MAX, "%.3000s/%s%s%s", folder, kind, *label ? "." : "", label);
}

/* Reads a small file as text; 0 if there is none. */
static int read_file(const char *kind, const char *label, char *text, size_t size)
{
	char name[PATH_MAX];
	file_name(name, kind, label);
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, size - 1);
	close(fd);
	text[n < 0 ? 0 : n] = 0;
	return n > 0;
}

static void count(const char *kind, const char *label)
{
	char name[PATH_MAX];
	file_name(name, kind, label);
	int fd = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0) {
		if (write(fd, ".", 1) != 1)
			perror("slowhsm");
		close(fd);
	}
}

static long number(const char *kind, const char *label)
{
	char text[64];
	if (read_file(kind, label, text, sizeof text) || (*label && read_file(kind, "", text, sizeof text)))
		return atol(text);
	return 0;
}

static void label_of(const token_info_t *info, char *label)
{
	int n = 32;
	while (n > 0 && (info->label[n - 1] == ' ' || info->label[n - 1] == 0))
		n--;
	for (int i = 0; i < n; i++)
		label[i] = isalnum(info->label[i]) || info->label[i] == '.' || info->label[i] == '-' ? info->label[i] : '_';
	label[n] = 0;
}

static slot_t *slot_of(ulong_t id)
{
	pthread_mutex_lock(&table);
	slot_t *found = NULL;
	for (int i = 0; i < SLOTS && !found; i++) {
		if (!slots[i].used) {
			slots[i].used = 1;
			slots[i].id = id;
			pthread_mutex_init(&slots[i].one, NULL);
		}
		if (slots[i].id == id)
			found = &slots[i];
	}
	pthread_mutex_unlock(&table);
	return found;
}

/*
 * Is the token of a slot plugged in? Fills in its label. Where it was pulled
 * since last time, its sessions are ended, and with them the login.
 */
static int present(ulong_t id, char *label)
{
	token_info_t info;
	if (REAL(GET_TOKEN_INFO, id, &info) != OK)
		return 1; /* the real module's business */
	label_of(&info, label);
	char text[64], word[8] = "in";
	long plugged = 0;
	if (read_file("state", label, text, sizeof text))
		sscanf(text, "%ld %7s", &plugged, word);
	int out = strcmp(word, "out") == 0;
	slot_t *slot = slot_of(id);
	if (slot && slot->plugged != plugged) {
		pthread_rwlock_wrlock(&pulling);
		if (slot->plugged != plugged) {
			REAL(CLOSE_ALL_SESSIONS, id);
			slot->plugged = plugged;
		}
		pthread_rwlock_unlock(&pulling);
	}
	return !out;
}

/* The same for a session; OK if it may be used. */
static rv_t usable(ulong_t session, ulong_t *id, char *label)
{
	session_info_t info;
	*label = 0;
	rv_t rv = REAL(GET_SESSION_INFO, session, &info);
	if (rv != OK)
		return rv;
	if (!present(info.slot, label))
		return DEVICE_REMOVED;
	*id = info.slot;
	return REAL(GET_SESSION_INFO, session, &info); /* it may just have been ended */
}

/* A function whose first argument is a session, guarded. */
#define GUARDED(name, n, parameters, ...)                                   \
	static rv_t name parameters                                         \
	{                                                                   \
		char label[33];                                             \
		ulong_t id;                                                 \
		rv_t rv = usable(session, &id, label);                      \
		if (rv != OK)                                               \
			return rv;                                          \
		pthread_rwlock_rdlock(&pulling);                            \
		rv = REAL(n, __VA_ARGS__);                                  \
		pthread_rwlock_unlock(&pulling);                            \
		return rv;                                                  \
	}

GUARDED(sign_init, SIGN_INIT, (ulong_t session, void *mechanism, ulong_t key), session, mechanism, key)
GUARDED(find_init, FIND_OBJECTS_INIT, (ulong_t session, void *template, ulong_t n), session, template, n)
GUARDED(find, FIND_OBJECTS, (ulong_t session, void *found, ulong_t most, void *n), session, found, most, n)
GUARDED(find_final, FIND_OBJECTS_FINAL, (ulong_t session), session)
GUARDED(attribute, GET_ATTRIBUTE_VALUE, (ulong_t session, ulong_t object, void *template, ulong_t n), session, object, template, n)
GUARDED(session_info, GET_SESSION_INFO, (ulong_t session, void *info), session, info)
GUARDED(close_session, CLOSE_SESSION, (ulong_t session), session)

static rv_t login(ulong_t session, ulong_t user, void *pin, ulong_t n)
{
	char label[33];
	ulong_t id;
	rv_t rv = usable(session, &id, label);
	if (rv != OK)
		return rv;
	count("logins", label);
	return REAL(LOGIN, session, user, pin, n);
}

static void load(void)
{
	char text[PATH_MAX], *rest, *line;
	if (read_file("env", "", text, sizeof text)) {
		for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
			char *value = strchr(line, '=');
			if (value) {
				*value = 0;
				setenv(line, value + 1, 1);
			}
		}
	}
}

static rv_t initialize(void *args)
{
	load();
	return REAL(INITIALIZE, args);
}

static rv_t slot_list(unsigned char with_token, ulong_t *out, ulong_t *n)
{
	ulong_t all[SLOTS], found = SLOTS;
	char label[33];
	rv_t rv = OK;
	if (!out) /* SoftHSM makes its empty slot only on this kind of call */
		rv = REAL(GET_SLOT_LIST, with_token, NULL, n);
	if (rv == OK)
		rv = REAL(GET_SLOT_LIST, with_token, all, &found);
	if (rv != OK)
		return rv;
	ulong_t kept = 0;
	for (ulong_t i = 0; i < found; i++)
		if (present(all[i], label) || !with_token)
			all[kept++] = all[i];
	if (out && *n < kept)
		rv = BUFFER_TOO_SMALL;
	else if (out)
		memcpy(out, all, kept * sizeof *all);
	*n = kept;
	return rv;
}

static rv_t slot_info(ulong_t id, slot_info_t *info)
{
	char label[33];
	rv_t rv = REAL(GET_SLOT_INFO, id, info);
	if (rv != OK)
		return rv;
	info->flags |= REMOVABLE_DEVICE | HW_SLOT;
	if (!present(id, label))
		info->flags &= ~(ulong_t)TOKEN_PRESENT;
	return OK;
}

static rv_t token_info(ulong_t id, token_info_t *info)
{
	char label[33] = "";
	if (!present(id, label))
		return TOKEN_NOT_PRESENT;
	rv_t rv = REAL(GET_TOKEN_INFO, id, info);
	if (rv == OK)
		info->flags |= (ulong_t)number("flags", label);
	return rv;
}

static rv_t open_session(ulong_t id, ulong_t flags, void *app, void *notify, void *session)
{
	char label[33];
	if (!present(id, label))
		return TOKEN_NOT_PRESENT;
	return REAL(OPEN_SESSION, id, flags, app, notify, session);
}

/* Waits until a time in steps short enough to notice that a token is pulled. */
static int wait_until(struct timespec until, ulong_t id)
{
	const long step = 20 * 1000 * 1000;
	char label[33];
	for (;;) {
		struct timespec now, next;
		clock_gettime(CLOCK_MONOTONIC, &now);
		long long left = (until.tv_sec - now.tv_sec) * 1000000000LL + until.tv_nsec - now.tv_nsec;
		if (left <= 0)
			return present(id, label);
		next = until;
		if (left > step) {
			next = now;
			next.tv_nsec += step;
			if (next.tv_nsec >= 1000000000) {
				next.tv_nsec -= 1000000000;
				next.tv_sec++;
			}
			if (!present(id, label))
				return 0;
		}
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) == EINTR)
			;
	}
}

static rv_t sign(ulong_t session, void *data, ulong_t n, void *signature, ulong_t *size)
{
	char label[33];
	ulong_t id;
	rv_t rv = usable(session, &id, label);
	if (rv != OK)
		return rv;
	slot_t *slot = slot_of(id);
	if (!signature || !slot) { /* only the size is asked */
		pthread_rwlock_rdlock(&pulling);
		rv = REAL(SIGN, session, data, n, signature, size);
		pthread_rwlock_unlock(&pulling);
		return rv;
	}
	pthread_mutex_lock(&slot->one);
	long plugged = slot->plugged;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	long long end = until.tv_nsec + 1000LL * number("delay", label);
	until.tv_sec += end / 1000000000;
	until.tv_nsec = end % 1000000000;
	pthread_rwlock_rdlock(&pulling);
	rv = REAL(SIGN, session, data, n, signature, size);
	pthread_rwlock_unlock(&pulling);
	if (rv == OK && (!wait_until(until, id) || slot->plugged != plugged))
		rv = DEVICE_REMOVED;
	if (rv == OK)
		count("signs", label);
	pthread_mutex_unlock(&slot->one);
	return rv;
}

static rv_t function_list(list_t **out)
{
	*out = &ours;
	return OK;
}

__attribute__((visibility("default"))) rv_t C_GetFunctionList(list_t **out)
{
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	rv_t rv = OK;
	pthread_mutex_lock(&once);
	if (!real) {
		Dl_info self;
		char path[PATH_MAX], *end;
		rv = GENERAL_ERROR;
		if (dladdr((void *)C_GetFunctionList, &self) && realpath(self.dli_fname, folder) && (end = strrchr(folder, '/'))) {
			*end = 0;
			if (read_file("real", "", path, sizeof path)) {
				path[strcspn(path, "\n")] = 0;
				void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
				rv_t (*get)(list_t **) = library ? (rv_t (*)(list_t **))dlsym(library, "C_GetFunctionList") : NULL;
				if (get)
					rv = get(&real);
				else
					fprintf(stderr, "slowhsm: %s\n", dlerror());
			}
		}
		if (rv == OK) {
			ours = *real;
			ours.f[INITIALIZE] = initialize;
			ours.f[GET_FUNCTION_LIST] = function_list;
			ours.f[GET_SLOT_LIST] = slot_list;
			ours.f[GET_SLOT_INFO] = slot_info;
			ours.f[GET_TOKEN_INFO] = token_info;
			ours.f[OPEN_SESSION] = open_session;
			ours.f[CLOSE_SESSION] = close_session;
			ours.f[GET_SESSION_INFO] = session_info;
			ours.f[LOGIN] = login;
			ours.f[GET_ATTRIBUTE_VALUE] = attribute;
			ours.f[FIND_OBJECTS_INIT] = find_init;
			ours.f[FIND_OBJECTS] = find;
			ours.f[FIND_OBJECTS_FINAL] = find_final;
			ours.f[SIGN_INIT] = sign_init;
			ours.f[SIGN] = sign;
		}
	}
	pthread_mutex_unlock(&once);
	if (rv == OK)
		*out = &ours;
	return rv;
}
