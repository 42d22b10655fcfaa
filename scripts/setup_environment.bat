@echo off
rem Make .venv in the project's folder and install requirements.txt, when needed.
rem An active virtual or conda environment that has the packages is used as it is.
rem
rem   scripts\setup_environment.bat
rem
rem The other scripts call this file; it gives them %python%, and %tools%, the folder of tensorboard and mlflow.
rem setup_environment.sh does the same; change both together.

setlocal
cd /d "%~dp0.."
rem The stamp is requirements.txt as installed; it is empty while a set-up is under way.
set "stamp=.venv\requirements.stamp"
set "python="
set "tools="

if defined VIRTUAL_ENV if /i not "%VIRTUAL_ENV%"=="%CD%\.venv" call :try_active "%VIRTUAL_ENV%\Scripts\python.exe"
if not defined python if defined CONDA_PREFIX call :try_active "%CONDA_PREFIX%\python.exe"
if defined python (
    echo Environment: the active one, "%python%"
    goto ready
)

set "python=.venv\Scripts\python.exe"
set "tools=.venv\Scripts\"
set "make="
for %%f in ("%stamp%") do if "%%~zf"=="0" set "make=yes"
"%python%" scripts\_check_python.py >nul 2>&1
if not "%errorlevel%"=="0" set "make=yes"
if defined make call :make_venv
if not "%errorlevel%"=="0" exit /b 1
call :compare_stamp
if not "%errorlevel%"=="0" call :install_packages
if not "%errorlevel%"=="0" exit /b 1
echo Environment: .venv

:ready
endlocal & set "python=%python%" & set "tools=%tools%"
exit /b 0


:try_active
if not exist "%~1" exit /b
"%~1" scripts\_check_python.py --packages >nul
if "%errorlevel%"=="0" set "python=%~1"
exit /b

:make_venv
set "base="
set "unfit="
call :try_base py -3
call :try_base python
call :try_base python3
for %%v in (3.14 3.13 3.12 3.11) do call :try_base py -%%v
if not defined base (
    if defined unfit (
        call %unfit% scripts\_check_python.py >nul
    ) else (
        >&2 echo Error: Python was not found; Python 3.11 or newer, 64-bit, is needed: https://www.python.org/downloads/
    )
    exit /b 1
)
echo Making .venv with %base%
if exist .venv rmdir /s /q .venv
mkdir .venv
type nul > "%stamp%"
call %base% -m venv .venv
if "%errorlevel%"=="0" exit /b 0
>&2 echo Error: .venv could not be made; see the message above
exit /b 1

rem Keep the first fit Python in `base`, the first unfit one in `unfit`.
:try_base
if defined base exit /b
for /f %%a in ('%* scripts\_check_python.py 2^>nul') do (
    if "%%a"=="fit" set "base=%*"
    if "%%a"=="unfit" if not defined unfit set "unfit=%*"
)
exit /b

:compare_stamp
if not exist "%stamp%" exit /b 1
setlocal enabledelayedexpansion
set "wanted="
set "installed="
for /f "usebackq delims=" %%l in ("requirements.txt") do set "wanted=!wanted!%%l;"
for /f "usebackq delims=" %%l in ("%stamp%") do set "installed=!installed!%%l;"
if not "!wanted!"=="!installed!" exit /b 1
exit /b 0

:install_packages
echo Installing the packages of requirements.txt in .venv; the first time this takes several minutes and several GB
type nul > "%stamp%"
"%python%" -m pip install --disable-pip-version-check -r requirements.txt
if not "%errorlevel%"=="0" (
    >&2 echo Error: the packages could not be installed; see the message above, then run the same command again
    exit /b 1
)
copy /y requirements.txt "%stamp%" >nul
exit /b 0
