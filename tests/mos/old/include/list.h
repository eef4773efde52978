#ifndef LIST_H
#define LIST_H
typedef struct entry { int length; struct entry *next; char text[0]; } entry_t;
extern entry_t *entries;
int shared; /* of both sources, as compilers before GCC 10 had it */
inline int twice(int n) { return n * 2; } /* in both sources */
#endif
