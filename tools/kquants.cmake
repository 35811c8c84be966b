# Small files of llama.cpp are compiled in few large ones: most of the time goes into headers that all of them read.
function(join_sources)
    get_target_property(sources llama SOURCES)
    get_target_property(folder llama SOURCE_DIR)
    # A digit is in the name of one only, whose functions are named like those of another.
    list(FILTER sources INCLUDE REGEX "^[a-z-]+\\.cpp$")
    list(TRANSFORM sources PREPEND "${folder}/")
    set_source_files_properties(${sources} TARGET_DIRECTORY llama PROPERTIES SKIP_UNITY_BUILD_INCLUSION OFF)
    set_target_properties(llama PROPERTIES UNITY_BUILD_BATCH_SIZE 24)
endfunction()
cmake_language(DEFER CALL join_sources)
