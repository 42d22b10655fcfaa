/* Stands in for python.exe, so that the .bat files can be run without Python for Windows.

   Each call appends its arguments to the file %STANDIN_LOG%, one line a call, an argument after each tab. A call whose
   line contains %STANDIN_FAIL% fails with exit code %STANDIN_CODE%. Otherwise `-m venv FOLDER` puts a copy of this
   program in FOLDER\Scripts, `_check_python.py` answers "fit", and `_wrapper_settings.py` prints the file
   %STANDIN_SETTINGS%.  */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

static void make_environment(const char *folder)
{
    char self[MAX_PATH], path[MAX_PATH];
    GetModuleFileNameA(NULL, self, sizeof self);
    CreateDirectoryA(folder, NULL);
    snprintf(path, sizeof path, "%s\\Scripts", folder);
    CreateDirectoryA(path, NULL);
    snprintf(path, sizeof path, "%s\\Scripts\\python.exe", folder);
    CopyFileA(self, path, FALSE);
}

static void print_file(const char *path)
{
    int c;
    FILE *file = fopen(path, "r");
    while ((c = fgetc(file)) != EOF)
        putchar(c);
    fclose(file);
}

int main(int argc, char **argv)
{
    char call[8192] = "";
    const char *fail = getenv("STANDIN_FAIL");
    FILE *log = fopen(getenv("STANDIN_LOG"), "a");
    for (int i = 1; i < argc; i++) {
        strcat(call, "\t");
        strcat(call, argv[i]);
    }
    fprintf(log, "%s\n", call);
    fclose(log);

    if (fail && strstr(call, fail)) {
        if (strstr(call, "_check_python.py"))
            puts("unfit");
        fprintf(stderr, "Error: the stand-in fails at %s\n", fail);
        return atoi(getenv("STANDIN_CODE"));
    }
    if (argc == 4 && strcmp(argv[2], "venv") == 0)
        make_environment(argv[3]);
    if (strstr(call, "_check_python.py"))
        puts("fit");
    if (strstr(call, "_wrapper_settings.py"))
        print_file(getenv("STANDIN_SETTINGS"));
    return 0;
}
