// RUN: insert-fake-quant{per-channel=false}
// Inputs and weights get grids; the accumulator of the last layer goes out as it is.
// CHECK:      "qat.fake_quant"(%arg0) <{grid = !quant.uniform<i8:f32, 7.8740157186985016e-03>}>
// CHECK:      "qat.fake_quant"(%{{.*}}) <{grid = !quant.uniform<i8<-127:127>:f32, 1.562500e-02>}>
// CHECK-NEXT: "hbir.linear"
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2xf32>) -> tensor<1x2xf32>}> ({
  ^bb0(%x: tensor<1x2xf32>):
    %w = "hbir.constant"() <{value = BLOB(f32: 1 0.5 -1.984375 0)}> : () -> tensor<2x2xf32>
    %y = "hbir.linear"(%x, %w) : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
    "func.return"(%y) : (tensor<1x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
