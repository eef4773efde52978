/* http_parsing.h: for programs that include the header of this name from mOS's samples and bring none of their own. */
#ifndef SHARDMOS_MOS_HTTP_PARSING_H
#define SHARDMOS_MOS_HTTP_PARSING_H
#define HTTP_GET "GET"
#define CONTENT_LENGTH_HDR "Content-Length:"
#define CONN_HDR_FLD "Connection:"
#define KEEP_ALIVE_STR "Keep-Alive"
enum { GET = 1, POST };
enum { HTTP_09, HTTP_10, HTTP_11 };
/* Bytes of the header, its empty line included, whose last byte becomes a NUL; 0 while it is not whole. */
int find_http_header(char *data, int len);
int is_http_request(char *data, int len);  /* GET, POST or 0 */
int is_http_response(char *data, int len);
/* Value of the field `key` (with its colon) in a NUL-terminated header: as text in `value`, or NULL; as a number, or -1. */
char *http_header_str_val(const char *buf, const char *key, const int key_len, char *value, int value_len);
long int http_header_long_val(const char *buf, const char *key, int key_len);
char *http_get_url(char *data, int data_len, char *value, int value_len); /* of a GET; NULL for what is none */
int http_get_status_code(void *response); /* -1: no status line */
#endif
