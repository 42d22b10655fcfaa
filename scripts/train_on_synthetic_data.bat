@echo off
rem Generate synthetic patients, convert them to datasets and pretrain ExMed-BERT on them; --help shows the arguments.
rem train_on_synthetic_data.sh does the same; change both together.

setlocal
cd /d "%~dp0.."

if "%~1"=="-h" goto usage
if "%~1"=="--help" goto usage
if "%~1"=="/?" goto usage
if not "%~5"=="" (
    >&2 echo Error: unexpected argument "%~5"; expected at most patients, novel_prob, max_len, seed
    exit /b 2
)
set "patients=%~1"
set "novel_prob=%~2"
set "max_len=%~3"
set "seed=%~4"
call :check_whole patients "%patients%" 1
if not "%errorlevel%"=="0" exit /b 2
call :check_probability novel_prob "%novel_prob%"
if not "%errorlevel%"=="0" exit /b 2
call :check_whole max_len "%max_len%" 2
if not "%errorlevel%"=="0" exit /b 2
call :check_whole seed "%seed%" 0
if not "%errorlevel%"=="0" exit /b 2

call scripts\setup_environment.bat
if not "%errorlevel%"=="0" exit /b 1

rem Through a file, because `for /f` over a command would lose the exit code.
set "settings=%TEMP%\exmed-bert-settings-%RANDOM%.txt"
"%python%" scripts\_wrapper_settings.py "%patients%" "%novel_prob%" "%max_len%" "%seed%" > "%settings%"
set "code=%errorlevel%"
for /f "usebackq tokens=1* delims==" %%k in ("%settings%") do set "%%k=%%l"
del "%settings%"
if not "%code%"=="0" exit /b %code%

set "step=1"
set "look=the section 'generate' of config.yaml"
echo.
echo Step 1 of 3: generating %num_patients% synthetic patients (novel codes: %novel_prob%)
"%python%" scripts\generate_synthetic_patients.py --num-patients %num_patients% --novel-prob %novel_prob% ^
    --seed %generate_seed% --output "%patients_file%"
if not "%errorlevel%"=="0" goto failed

set "step=2"
set "look=the section 'convert' of config.yaml"
echo.
echo Step 2 of 3: converting them to datasets of at most %max_length% codes per patient (%masking%)
"%python%" scripts\convert_synthetic_to_dataset.py --input "%patients_file%" --output "%dataset%" --split all ^
    --max-length %max_length% %masking% --seed %convert_seed%
if not "%errorlevel%"=="0" goto failed

set "step=3"
set "look=%output_dir%\output.log"
echo.
echo Step 3 of 3: pretraining ExMed-BERT on them
"%python%" scripts\pretrain-exmed-bert-clinvec.py --training-data "%training_data%" ^
    --validation-data "%validation_data%" --output-dir "%output_dir%" --output-data-dir "%output_data_dir%" ^
    --max-seq-length %max_length% %masking% --seed %pretrain_seed%
if not "%errorlevel%"=="0" goto failed

echo.
echo Done. Written in "%CD%":
echo   %patients_file%  the patients
echo   %training_data%  the training dataset
echo   %validation_data%  the validation dataset
echo   %conversion_page%  a page about both, to open in a browser
echo   %output_dir%  the model, its checkpoints and output.log
echo   %output_data_dir%  the metrics, TensorBoard's and MLflow's records
echo.
echo Next, in that folder; each of the first four writes a page to open in a browser, or a table:
echo   Compare the patients with published values (output\synthetic_report\report.html):
echo     %tools%python scripts\report_synthetic_data.py --input "%patients_file%" --output-dir output\synthetic_report
echo   Fine-tune the model to a prolonged stay, and compare it with baselines (output\finetune\report.html):
echo     %tools%python scripts\finetune-exmed-bert.py --task plos --model-dir "%output_dir%" --input "%patients_file%" --output-dir output\finetune
echo   See what the model makes of novel codes (output\novel_codes\report.html):
echo     %tools%python scripts\analyze_novel_codes.py --model-dir "%output_dir%" --dataset "%validation_data%" --output-dir output\novel_codes
echo   Embed the patients, a vector for each (output\embeddings.parquet):
echo     %tools%python scripts\embed_patients.py --model-dir "%output_dir%" --input "%patients_file%" --output output\embeddings.parquet
echo   Read the metrics:
echo     type "%output_data_dir%\eval_results.txt"
echo   See the training curves:
echo     %tools%tensorboard --logdir "%output_data_dir%\logs"
echo   Compare runs, at http://127.0.0.1:5000/#/experiments/1/runs:
echo     set MLFLOW_DISABLE_TELEMETRY=true^&^& %tools%mlflow ui --backend-store-uri "sqlite:///%output_data_dir:\=/%/mlruns.db"
echo   Pretrain from ClinVec's embeddings, once they are downloaded (docs\CLINVEC.md):
echo     %tools%python scripts\pretrain-exmed-bert-clinvec.py --training-data "%training_data%" --validation-data "%validation_data%" --output-dir output\with_clinvec --output-data-dir output\with_clinvec_data --max-seq-length %max_length% %masking% --use-clinvec --clinvec-dir ..\ClinVec --use-hierarchical-init --resize-if-needed
exit /b 0

:failed
set "code=%errorlevel%"
>&2 echo Error: step %step% of 3 failed with exit code %code%; see the message above and %look%
exit /b %code%

:usage
echo Usage: scripts\train_on_synthetic_data.bat [patients] [novel_prob] [max_len] [seed]
echo.
echo Generates synthetic patients, converts them to datasets and pretrains ExMed-BERT on them.
echo.
echo   patients    how many, a whole number of at least 1 (as shipped: 1000)
echo   novel_prob  probability of a novel code, a number from 0 to 1 (as shipped: 0.01)
echo   max_len     most codes per patient, a whole number of at least 2 (as shipped: 50)
echo   seed        random seed, a whole number of at least 0 (as shipped: 42)
echo.
echo What is not given, or is "", comes from config.yaml in the project's folder, as do all other settings.
exit /b 0

rem name, value, smallest
:check_whole
if "%~2"=="" exit /b 0
call :check_only 0123456789 "%~2"
if "%errorlevel%"=="0" if %~2 geq %~3 exit /b 0
>&2 echo Error: %~1: expected a whole number of at least %~3, got "%~2"
exit /b 2

rem name, value
:check_probability
set "number=%~2"
if not defined number exit /b 0
if "%number%"=="0" exit /b 0
if "%number%"=="1" exit /b 0
set "digits=0123456789"
set "decimals="
if "%number:~0,1%"=="." set "decimals=%number:~1%"
if "%number:~0,2%"=="0." set "decimals=%number:~2%"
if "%number:~0,2%"=="1." set "digits=0"
if "%number:~0,2%"=="1." set "decimals=%number:~2%"
call :check_only %digits% "%decimals%"
if "%errorlevel%"=="0" exit /b 0
>&2 echo Error: %~1: expected a number from 0 to 1, such as 0.01, got "%~2"
exit /b 2

rem Whether the text (second) is one or more of the characters (first) and nothing else. The x keeps the line from
rem being empty or starting with a semicolon, both of which `for /f` skips.
:check_only
if "%~2"=="" exit /b 1
for /f "tokens=1* delims=%~1" %%a in ("x%~2") do if not "%%a%%b"=="x" exit /b 1
exit /b 0
