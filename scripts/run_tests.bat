@echo off
rem Set up the environment and run the tests; what is given goes to pytest.
rem
rem   scripts\run_tests.bat -k wrappers

setlocal
cd /d "%~dp0.."
call scripts\setup_environment.bat
if not "%errorlevel%"=="0" exit /b 1
"%python%" -m pytest -n 2 --dist loadfile %*
exit /b %errorlevel%
